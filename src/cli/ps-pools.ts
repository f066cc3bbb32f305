/** `infralet ps --pool`: the machines that wait for pods, and how well their number fits the pods that come. */
import { z } from 'zod';
import type { AdminClient } from '../admin/client.ts';
import { printable } from '../base/text.ts';
import { systemClock } from '../base/time.ts';
import { formatAge, formatBytes, formatTable } from './format.ts';
import { type Io, line } from './io.ts';

const TIMEOUT_MS = 10_000;

const size = z.object({ cpuMillis: z.number().catch(0), memoryBytes: z.number().catch(0) });
const member = z.object({
  id: z.string().catch(''),
  state: z.string().catch('unknown'),
  createdAt: z.number().catch(0),
  instanceId: z.string().catch(''),
  lastError: z.string().catch(''),
  machine: size.extend({ usage: size.pick({ memoryBytes: true }).nullable().catch(null) }),
});
const count = z.number().catch(0);
const poolSchema = z.object({
  name: z.string().catch(''),
  shape: size,
  target: z.object({ size: count, limitedBy: z.string().optional().catch(undefined) }),
  waiting: count,
  starting: count,
  claims: count,
  misses: count,
  failed: count,
  arrivals: count,
  windowMs: count,
  refillMs: count,
  members: z.array(member).catch([]),
});
type PoolInfo = z.output<typeof poolSchema>;

export async function psPools(
  admin: Pick<AdminClient, 'pools'>,
  io: Io,
  options: { readonly json: boolean; readonly now?: number },
): Promise<void> {
  const listed = await admin.pools({ signal: io.signal, timeoutMs: TIMEOUT_MS });
  if (options.json) return line(io.out, JSON.stringify(listed, undefined, 2));
  const pools = listed.map((each) => poolSchema.parse(each));
  const header = [
    'POOL',
    'CPU',
    'MEMORY',
    'TARGET',
    'WAITING',
    'STARTING',
    'CLAIMS',
    'MISSES',
    'FAILED',
    'ARRIVALS',
    'REFILL',
  ];
  line(io.out, formatTable(header, pools.map(poolCells)));
  const now = options.now ?? systemClock.now();
  const rows = pools.flatMap((pool) => pool.members.map((each) => memberCells(pool.name, each, now)));
  if (rows.length === 0) return;
  line(io.out, '');
  line(io.out, formatTable(['ID', 'POOL', 'STATE', 'AGE', 'MEMORY', 'MACHINE', 'LAST ERROR'], rows));
}

function poolCells(pool: PoolInfo): readonly string[] {
  const { size: target, limitedBy } = pool.target;
  return [
    pool.name,
    `${pool.shape.cpuMillis / 1000}`,
    formatBytes(pool.shape.memoryBytes),
    limitedBy === undefined ? `${target}` : `${target} (${limitedBy})`,
    ...[pool.waiting, pool.starting, pool.claims, pool.misses, pool.failed].map(String),
    `${pool.arrivals} in ${formatAge(pool.windowMs)}`,
    `${(pool.refillMs / 1000).toFixed(1)}s`,
  ];
}

function memberCells(pool: string, each: PoolInfo['members'][number], now: number): readonly string[] {
  const { usage, memoryBytes } = each.machine;
  return [
    each.id.slice(0, 13),
    pool,
    // To those who look, a machine that is connected waits.
    each.state === 'connected' ? 'waiting' : each.state,
    formatAge(now - each.createdAt),
    usage === null ? formatBytes(memoryBytes) : `${formatBytes(usage.memoryBytes)} of ${formatBytes(memoryBytes)}`,
    each.instanceId === '' ? '-' : each.instanceId,
    printable(each.lastError).replaceAll(/\s+/g, ' ').trim().slice(0, 100),
  ];
}
