/** `infralet explain size FILE`: what machine a pod would get, at which price, and why no other. Launches nothing. */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import type { AdminClient } from '../admin/client.ts';
import { InfraletError } from '../base/errors.ts';
import { printable } from '../base/text.ts';
import type { Config } from '../config/schema.ts';
import { explainSize } from '../sandbox/explain.ts';
import type { PodFootprint } from '../sandbox/placement.ts';
import { formatBytes, formatTable } from './format.ts';
import { type Io, line } from './io.ts';
import { openProvider } from './open-provider.ts';
import { readPod } from './pod-manifest.ts';

/** A catalogue of some hundred types takes a cloud a few seconds. */
const TIMEOUT_MS = 60_000;
const MAX_FILE_BYTES = 4 * 2 ** 20;

const offer = z.object({
  type: z.string(),
  zone: z.string(),
  market: z.string(),
  pricePerHour: z.number(),
  estimated: z.boolean(),
  cpuMillis: z.number(),
  memoryBytes: z.number(),
  gpus: z.object({ model: z.string(), count: z.number() }).optional(),
});
const explanation = z.object({
  pod: z.string(),
  runtimeHandler: z.string(),
  provider: z.string(),
  shape: z.object({ cpuMillis: z.number(), memoryBytes: z.number(), diskBytes: z.number() }),
  placement: z.record(z.string(), z.unknown()),
  offers: z
    .object({
      ranked: z.array(offer),
      rejected: z.array(z.object({ offer, reason: z.string() })),
    })
    .optional(),
});
type Explained = z.output<typeof explanation>;
type Offer = z.output<typeof offer>;

export interface ExplainOptions {
  readonly json: boolean;
  /** Runtime handler; default: the manifest's runtimeClassName. */
  readonly handler?: string | undefined;
  /** Most offers that are shown of each kind. */
  readonly limit: number;
}

/** Returns whether the pod would get a machine. */
export async function explainSizeCommand(
  config: Config,
  admin: Pick<AdminClient, 'explainSize'>,
  file: string,
  io: Io,
  options: ExplainOptions,
): Promise<boolean> {
  const pod = readPod(await readText(file), file, options.handler);
  // The daemon knows its own configuration, and what was not to be had a moment ago.
  const found = await admin
    .explainSize(pod, { signal: io.signal, timeoutMs: TIMEOUT_MS })
    .catch(async (error: unknown) => {
      if (InfraletError.from(error).code !== 'UNAVAILABLE') throw error;
      return await withoutDaemon(config, pod, io.signal);
    });
  if (options.json) line(io.out, JSON.stringify(found, undefined, 2));
  const explained = explanation.parse(found);
  if (!options.json) print(explained, io, options.limit);
  return explained.offers === undefined || explained.offers.ranked.length > 0;
}

async function readText(file: string): Promise<string> {
  try {
    const bytes = await readFile(file);
    if (bytes.length <= MAX_FILE_BYTES) return bytes.toString('utf8');
  } catch (error) {
    throw new InfraletError('NOT_FOUND', `cannot read ${file}`, { cause: error });
  }
  throw new InfraletError('INVALID_ARGUMENT', `${file} is larger than 4 MiB: it is no pod`);
}

async function withoutDaemon(config: Config, pod: PodFootprint, signal: AbortSignal): Promise<unknown> {
  await using provider = await openProvider(config, signal);
  return await explainSize(pod, config, provider, signal);
}

function print({ pod, provider, shape, placement, offers }: Explained, io: Io, limit: number): void {
  const { cpuMillis, memoryBytes, diskBytes } = shape;
  const size = `${cpuMillis / 1000} CPU, ${formatBytes(memoryBytes)} of memory, ${formatBytes(diskBytes)} of disk`;
  line(io.out, `pod ${printable(pod)}: ${size}`);
  const demands = Object.entries(placement).map(([name, value]) => `${name} ${demand(value)}`);
  line(io.out, `demands: ${printable(demands.join(', ')) || 'none'}`);
  if (!offers) {
    line(io.out, `the provider ${provider} makes machines of any size; there is no choice`);
    return;
  }
  const { ranked, rejected } = offers;
  line(io.out);
  if (ranked.length === 0) line(io.out, 'no offer will do');
  else {
    const header = ['RANK', 'TYPE', 'ZONE', 'MARKET', 'CPU', 'MEMORY', 'GPUS', 'USD/HOUR'];
    line(io.out, formatTable(header, ranked.slice(0, limit).map(offerCells)));
    if (ranked.length > limit) line(io.out, `… and ${ranked.length - limit} more`);
  }
  if (rejected.length === 0) return;
  line(io.out);
  line(io.out, formatTable(['LEFT OUT', 'BECAUSE', 'OFFERS'], groups(rejected).slice(0, limit)));
}

function demand(value: unknown): string {
  if (Array.isArray(value)) return value.map(String).join(' or ');
  if (typeof value !== 'object' || value === null) return String(value);
  return Object.values(value).map(String).join(' × ');
}

function offerCells({ pricePerHour, estimated, gpus, ...each }: Offer, index: number): readonly string[] {
  return [
    `${index + 1}`,
    each.type,
    each.zone,
    each.market,
    `${each.cpuMillis / 1000}`,
    formatBytes(each.memoryBytes),
    gpus ? `${gpus.count} × ${gpus.model}` : '-',
    `${pricePerHour.toFixed(4)}${estimated ? ' (estimated)' : ''}`,
  ];
}

/** One row per reason, the commonest first: how many offers it rules out, and some of them by name. */
function groups(
  rejected: readonly { readonly offer: Offer; readonly reason: string }[],
): readonly (readonly string[])[] {
  const byReason = new Map<string, Set<string>>();
  const counts = new Map<string, number>();
  for (const { offer: each, reason } of rejected) {
    byReason.set(reason, (byReason.get(reason) ?? new Set()).add(each.type));
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  return [...byReason]
    .sort(([a], [b]) => (counts.get(b) ?? 0) - (counts.get(a) ?? 0))
    .map(([reason, types]) => {
      const names = [...types].sort();
      const more = names.length > 4 ? `, … (${names.length} types)` : '';
      return [`${counts.get(reason) ?? 0}`, printable(reason), `${names.slice(0, 4).join(', ')}${more}`];
    });
}
