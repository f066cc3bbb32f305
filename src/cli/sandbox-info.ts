/** The JSON that PodSandboxStatus gives with `verbose`, as far as the command line reads it. */
import { z } from 'zod';
import type { CallLimits } from '../admin/unary.ts';
import type { CriClient } from './cri-client.ts';

const phase = z.object({ phase: z.string(), ms: z.number() });

const infoSchema = z.object({
  state: z.string().catch('unknown'),
  instanceId: z.string().catch(''),
  machine: z
    .object({
      cpuMillis: z.number().catch(0),
      memoryBytes: z.number().catch(0),
      diskBytes: z.number().catch(0),
      usage: z.object({ memoryBytes: z.number(), diskBytes: z.number() }).optional().catch(undefined),
    })
    .optional()
    .catch(undefined),
  timeline: z.array(phase).catch([]),
  lastError: z.string().catch(''),
  podIp: z.string().catch(''),
  consoleTail: z.string().catch(''),
});

/** Fields that are missing or of another type read as empty: a daemon may be older or newer than this command. */
export type SandboxInfo = z.output<typeof infoSchema>;
export type Phase = z.output<typeof phase>;

export function parseSandboxInfo(value: unknown): SandboxInfo {
  return infoSchema.parse(typeof value === 'object' && value !== null ? value : {});
}

/** From the `info` map of a verbose status: one JSON text under "info". */
export function infoOfStatus(info: Readonly<Record<string, string>>): SandboxInfo {
  const text = info['info'];
  if (text === undefined) return parseSandboxInfo({});
  try {
    return parseSandboxInfo(JSON.parse(text));
  } catch {
    return parseSandboxInfo({});
  }
}

export async function sandboxInfo(cri: CriClient, podSandboxId: string, limits: CallLimits): Promise<SandboxInfo> {
  const { info } = await cri.call('PodSandboxStatus', { podSandboxId, verbose: true }, limits);
  return infoOfStatus(info);
}

/** The timeline as text: when each phase was reached, in milliseconds since the pod was asked for, and how long it took. */
export function formatTimeline(timeline: readonly Phase[]): string {
  const rows = timeline.map(({ phase, ms }, index) => ({
    phase,
    at: String(Math.round(ms)),
    took: String(Math.round(ms - (timeline[index - 1]?.ms ?? 0))),
  }));
  const width = (cells: readonly string[]): number => Math.max(0, ...cells.map((cell) => cell.length));
  const name = width(rows.map((row) => row.phase));
  const at = width(rows.map((row) => row.at));
  const took = width(rows.map((row) => row.took));
  return rows
    .map((row) => `${row.phase.padEnd(name)}  ${row.at.padStart(at)} ms  (+${row.took.padStart(took)})`)
    .join('\n');
}
