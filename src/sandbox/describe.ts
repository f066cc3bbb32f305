/** What is known about sandboxes, for `infralet ps` and `infralet describe`; also about those still being made. */
import type { SandboxId } from '../base/ids.ts';
import type { MachineUsage, Provider } from '../cloud/contract.ts';
import type { Journal } from '../state/journal.ts';
import { consoleTail } from './console.ts';
import type { PoolView } from './pool.ts';
import type { SandboxRecord } from './record.ts';
import type { SandboxService } from './service.ts';
import type { SandboxStore } from './store.ts';
import { machineUsages } from './usage.ts';

/** Enough to see the end of a kernel's panic and what led to it. */
const CONSOLE_BYTES = 8192;

export interface ContainerSummary {
  readonly id: string;
  readonly name: string;
  readonly attempt: number;
  /** As the pod's author wrote it, where that is known. */
  readonly image: string;
  /** "creating" until the machine has it, "removing" from the first try to remove it; else the CRI's state. */
  readonly state: 'creating' | 'created' | 'running' | 'exited' | 'unknown' | 'removing';
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
  /** 0 until it has exited. */
  readonly exitCode: number;
  readonly reason: string;
}

export interface DescribeDeps {
  readonly store: SandboxStore;
  readonly journal: Journal;
  readonly provider: Provider;
  readonly sandboxes: SandboxService;
  readonly containersOf: (id: SandboxId) => readonly ContainerSummary[];
}

type Description = Readonly<Record<string, unknown>>;

/** All sandboxes of pods, the newest first, JSON-able. */
export async function listSandboxes(deps: DescribeDeps, signal: AbortSignal): Promise<readonly Description[]> {
  const records = deps.store
    .all()
    .map(({ record }) => record)
    .filter(({ pool }) => pool === '')
    .toSorted((a, b) => b.createdAt - a.createdAt);
  // Before anything is waited for: a sandbox may be gone afterwards.
  const known = records.map((record) => {
    const containers = deps.containersOf(record.id);
    const running = containers.filter(({ state }) => state === 'running').length;
    return { ...deps.sandboxes.describe(record.id), containers: { running, all: containers.length } };
  });
  const usages = await machineUsages(deps.provider, records, signal);
  return records.map((record, index) => ({ ...known[index], machine: machine(record, usages[index]) }));
}

/** All that is known about one sandbox (id or unique prefix), JSON-able. Throws NOT_FOUND. */
export async function describeSandbox(deps: DescribeDeps, id: string, signal: AbortSignal): Promise<Description> {
  const { provider } = deps;
  const known = deps.sandboxes.describe(id);
  const record = deps.store.find(String(known['id']))?.record;
  if (!record) return known;
  const instanceId = record.machine === 'launched' ? record.instanceId : undefined;
  const containers = deps.containersOf(record.id);
  const steps = deps.journal.steps(record.id);
  const [[usage], console] = await Promise.all([
    machineUsages(provider, [record], signal),
    instanceId === undefined ? '' : consoleTail(provider, instanceId, CONSOLE_BYTES, signal),
  ]);
  return { ...known, machine: machine(record, usage), containers, steps, consoleTail: console };
}

/** The pools, each with its machines, JSON-able. */
export async function listPools(
  provider: Provider,
  pools: readonly PoolView[],
  signal: AbortSignal,
): Promise<readonly Description[]> {
  const usages = await machineUsages(
    provider,
    pools.flatMap(({ members }) => members),
    signal,
  );
  const rest = [...usages];
  return pools.map(({ members, ...pool }) => ({
    ...pool,
    members: members.map((record) => ({
      id: record.id,
      state: record.state,
      createdAt: record.createdAt,
      instanceId: record.instanceId ?? '',
      lastError: record.lastError,
      machine: machine(record, rest.shift()),
    })),
  }));
}

/** What it uses stands beside what it was given. */
function machine(record: SandboxRecord, usage: MachineUsage | null | undefined): Description {
  return { ...record.shape, usage: usage ?? null };
}
