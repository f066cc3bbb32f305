/** The JSON that the admin service, and PodSandboxStatus with `verbose`, give: as far as the command line reads it. */
import { z } from 'zod';
import type { CallLimits } from '../admin/unary.ts';
import type { CriClient } from './cri-client.ts';

const phase = z.object({ phase: z.string(), ms: z.number() });

const container = z.object({
  id: z.string().catch(''),
  name: z.string().catch(''),
  attempt: z.number().catch(0),
  image: z.string().catch(''),
  state: z.string().catch('unknown'),
  createdAt: z.number().catch(0),
  exitCode: z.number().catch(0),
  reason: z.string().catch(''),
});

const infoSchema = z.object({
  id: z.string().catch(''),
  podName: z.string().catch(''),
  podNamespace: z.string().catch(''),
  podUid: z.string().catch(''),
  attempt: z.number().catch(0),
  state: z.string().catch('unknown'),
  ready: z.boolean().catch(false),
  listed: z.boolean().catch(true),
  wanted: z.string().catch(''),
  reason: z.string().catch(''),
  createdAt: z.number().catch(0),
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
  containers: z.array(container).catch([]),
  consoleTail: z.string().catch(''),
});

const listedSchema = infoSchema.extend({
  containers: z.object({ running: z.number(), all: z.number() }).catch({ running: 0, all: 0 }),
});

/** Fields that are missing or of another type read as empty: a daemon may be older or newer than this command. */
export type SandboxInfo = z.output<typeof infoSchema>;
export type ListedSandbox = z.output<typeof listedSchema>;
export type Phase = z.output<typeof phase>;

export function parseSandboxInfo(value: unknown): SandboxInfo {
  return infoSchema.parse(typeof value === 'object' && value !== null ? value : {});
}

/** One of the admin service's list. */
export function parseListedSandbox(value: Readonly<Record<string, unknown>>): ListedSandbox {
  return listedSchema.parse(value);
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
