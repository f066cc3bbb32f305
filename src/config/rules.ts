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
  return RULES.filter(([, holds]) => !holds(config)).map(([path, , message]) => ({ path: path.split('.'), message }));
}
