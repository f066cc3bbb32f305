/** What must hold between settings; each one alone is the schema's concern. */
import type { Config } from './schema.ts';

export interface Violation {
  readonly path: readonly string[];
  readonly message: string;
}

type Rule = readonly [path: string, holds: (config: Config) => boolean, message: string];

const RULES: readonly Rule[] = [
  ['machine.maxCpuMillis', ({ machine: m }) => m.maxCpuMillis >= m.minCpuMillis, 'is less than machine.minCpuMillis'],
  ['machine.maxMemory', ({ machine: m }) => m.maxMemory >= m.minMemory, 'is less than machine.minMemory'],
  [
    'machine.defaultCpuMillis',
    ({ machine: m }) => m.defaultCpuMillis <= m.maxCpuMillis,
    'is more than machine.maxCpuMillis',
  ],
  [
    'machine.defaultMemory',
    ({ machine: m }) => m.defaultMemory + m.overheadMemory <= m.maxMemory,
    'plus machine.overheadMemory is more than machine.maxMemory',
  ],
  [
    'machine.maxDisk',
    ({ machine: m }) => m.maxDisk >= Math.max(m.disk, m.minDisk),
    'is less than machine.disk or minDisk',
  ],
  ['machine.goneAfter', ({ machine: m }) => m.goneAfter > m.heartbeat, 'must be longer than machine.heartbeat'],
  ['pki.renewBefore', ({ pki }) => pki.renewBefore < pki.leafLife, 'must be shorter than pki.leafLife'],
  ['pki.leafLife', ({ pki }) => pki.leafLife <= pki.caLife, 'must not be longer than pki.caLife'],
  [
    'reconciler.retryInitial',
    ({ reconciler: r }) => r.retryInitial <= r.retryMax,
    'must not be longer than reconciler.retryMax',
  ],
  [
    'server.socket',
    ({ server }) => Buffer.byteLength(server.socket) <= 107,
    'is longer than 107 bytes, the most that a unix socket path can have',
  ],
];

export function violations(config: Config): readonly Violation[] {
  const settings = RULES.filter(([, holds]) => !holds(config)).map(([path, , message]) => ({
    path: path.split('.'),
    message,
  }));
  const pools = Object.keys(config.pools).flatMap((name) => poolViolations(name, config));
  return [...settings, ...Object.keys(config.profiles).flatMap((name) => profileViolations(name, config)), ...pools];
}

function profileViolations(name: string, { profiles, machine }: Config): readonly Violation[] {
  const disk = profiles[name]?.disk ?? machine.disk;
  if (disk <= machine.maxDisk) return [];
  return [{ path: ['profiles', name, 'disk'], message: 'is more than machine.maxDisk' }];
}

function poolViolations(name: string, { pools, machine, runtimeHandlers, profiles }: Config): readonly Violation[] {
  const pool = pools[name];
  if (!pool) return [];
  const found: Violation[] = [];
  const wrong = (key: string, message: string): unknown => found.push({ path: ['pools', name, key], message });
  const memory = Math.max((pool.memory ?? machine.defaultMemory) + machine.overheadMemory, machine.minMemory);
  const unknown = pool.runtimeHandlers?.find((handler) => !runtimeHandlers.includes(handler));
  if (unknown !== undefined) wrong('runtimeHandlers', `${JSON.stringify(unknown)} is not one of runtimeHandlers`);
  // A machine is bought before its pod is known: it must be what every pod of the pool would have got.
  const kinds = new Set(pool.runtimeHandlers?.map((handler) => JSON.stringify(profiles[handler] ?? {})));
  if (kinds.size > 1) wrong('runtimeHandlers', 'have different profiles: a pool has machines of one kind');
  if (memory > machine.maxMemory) wrong('memory', 'plus machine.overheadMemory is more than machine.maxMemory');
  if ((pool.cpuMillis ?? 0) > machine.maxCpuMillis) wrong('cpuMillis', 'is more than machine.maxCpuMillis');
  if (typeof pool.size === 'number') {
    const most = Math.floor(pool.maxMemory / memory);
    if (pool.size > most) wrong('size', `needs more memory than maxMemory allows: ${most} machines`);
  } else if (pool.size.min > pool.size.max) wrong('size', 'min is more than max');
  return found;
}
