/** Figures of sandboxes: how long they take to start, what becomes of them, what they cost. Pods have no figures of their own. */
import type { FaultKind, Provider } from '../cloud/contract.ts';
import { type Meters, type Reading, SECONDS } from '../telemetry/meters.ts';
import type { PoolView } from './pool.ts';
import type { SandboxRecord } from './record.ts';
import { SANDBOX_STATES } from './record.ts';
import type { StartupGate } from './startup-gate.ts';
import type { SandboxStore } from './store.ts';
import type { SweepFigures } from './sweeper.ts';

export interface SandboxFigures {
  readonly provider: Pick<Provider, 'hourlyPrice' | 'clone'>;
  readonly store: SandboxStore;
  readonly sessions: { readonly size: number };
  readonly reconciler: { readonly figures: { readonly active: number; readonly failing: number } };
  readonly gate: Pick<StartupGate, 'figures'>;
  readonly launcher: { readonly coldBoots: ReadonlyMap<FaultKind, number> };
  readonly pool: { view(): readonly PoolView[] };
  readonly sweeper: { readonly figures: SweepFigures };
}

/** Each phase of a start, and the phases of which the last one ends before it begins. */
const PHASES: readonly (readonly [phase: string, after: readonly string[]])[] = [
  ['turn', ['asked']],
  ['network', ['turn', 'claimed']],
  ['launch', ['turn']],
  ['enrolled', ['launch']],
  ['connected', ['enrolled']],
  ['joined', ['launch', 'network', 'claimed']],
  ['guest', ['connected', 'network', 'claimed']],
  ['ready', ['guest', 'joined']],
];

/** Listing templates is a matter of milliseconds; a scraper waits no longer. */
const LIST_MS = 3000;

export function measureSandboxes(meters: Meters, figures: SandboxFigures): void {
  measureStarts(meters, figures.store);
  const { store, sessions, reconciler, gate, launcher, pool, sweeper, provider } = figures;
  const pods = (): readonly SandboxRecord[] =>
    store.all().flatMap(({ record }) => (record.pool === '' ? [record] : []));
  meters.read('gauge', 'infralet_sandboxes', 'Pod sandboxes that the node has now, by state.', ['state'], () => {
    const counts = new Map<string, number>(SANDBOX_STATES.map((state) => [state, 0]));
    for (const { state } of pods()) counts.set(state, (counts.get(state) ?? 0) + 1);
    return [...counts].map(([state, count]): Reading => [{ state }, count]);
  });
  meters.read('gauge', 'infralet_agent_sessions', 'Machines with an open channel.', [], () => [[{}, sessions.size]]);
  meters.read(
    'gauge',
    'infralet_reconciler_active',
    'Sandboxes that are worked on or wait for their next try.',
    [],
    () => [[{}, reconciler.figures.active]],
  );
  meters.read('gauge', 'infralet_reconciler_failing', 'Sandboxes whose last step has failed.', [], () => [
    [{}, reconciler.figures.failing],
  ]);
  const places = (what: 'inside' | 'waiting') => (): readonly Reading[] =>
    Object.entries(gate.figures).map(([kind, counts]): Reading => [{ kind }, counts[what]]);
  meters.read('gauge', 'infralet_startup_gate_inside', 'Machines that start now.', ['kind'], places('inside'));
  meters.read('gauge', 'infralet_startup_gate_waiting', 'Starts that wait for a place.', ['kind'], places('waiting'));
  meters.read(
    'counter',
    'infralet_cold_boots_total',
    'Machines that booted because they could not be cloned, by the fault.',
    ['reason'],
    () => [...launcher.coldBoots].map(([reason, count]): Reading => [{ reason }, count]),
  );
  const { clone } = provider;
  if (clone) {
    meters.read(
      'gauge',
      'infralet_templates',
      'Templates that machines are cloned from, by state.',
      ['state'],
      async () => {
        const templates = await clone.list(AbortSignal.timeout(LIST_MS));
        const count = (state: string): number => templates.filter((each) => each.state === state).length;
        return ['building', 'ready'].map((state): Reading => [{ state }, count(state)]);
      },
    );
  }
  measurePools(meters, pool);
  meters.read(
    'gauge',
    'infralet_machine_dollars_per_hour',
    'What the machines of a namespace cost; _pool: those that wait for pods, _other: namespaces beyond the costliest 100.',
    ['namespace'],
    () => costs(store, provider),
  );
  meters.read('gauge', 'infralet_orphans', 'Of nobody, as the last look has seen it.', ['kind'], () =>
    Object.entries(sweeper.figures.found).map(([kind, count]): Reading => [{ kind }, count]),
  );
  meters.read('counter', 'infralet_orphans_removed_total', 'Removed since nobody owned it.', ['kind'], () =>
    Object.entries(sweeper.figures.removed).map(([kind, count]): Reading => [{ kind }, count]),
  );
}

function measureStarts(meters: Meters, store: SandboxStore): void {
  const whole = meters.histogram(
    'infralet_sandbox_start_seconds',
    'From RunPodSandbox to ready, by how the machine began.',
    ['start'],
    SECONDS,
  );
  const phase = meters.histogram(
    'infralet_sandbox_phase_seconds',
    'Parts of a start: each from the end of what it waits for. They overlap.',
    ['phase', 'start'],
    SECONDS,
  );
  const outcomes = meters.counter(
    'infralet_sandbox_starts_total',
    'Starts that have ended: ready, failed, or abandoned before either.',
    ['start', 'outcome'],
  );
  const lost = meters.counter('infralet_sandboxes_lost_total', 'Sandboxes that were ready and have failed.', []);
  const interrupted = meters.counter(
    'infralet_interruptions_total',
    'Pods whose machine the cloud has announced to take back.',
    [],
  );
  store.onChange((before, after) => {
    const record = after?.record;
    const was = before?.record;
    const last = record ?? was;
    if (last?.pool !== '') return;
    if (was && was.interruption === undefined && record?.interruption !== undefined) interrupted({});
    const start = startOf(last);
    if (record?.state === 'ready' && was?.state !== 'ready' && was?.listed !== true) {
      outcomes({ start, outcome: 'ready' });
      for (const [name, seconds] of phaseSeconds(record.timeline)) phase({ phase: name, start }, seconds);
      const { asked, ready } = record.timeline;
      if (asked !== undefined && ready !== undefined) whole({ start }, Math.max(0, ready - asked) / 1000);
    } else if (record?.state === 'failed' && was?.state !== 'failed') {
      if (record.listed) lost({});
      else outcomes({ start, outcome: 'failed' });
    } else if (!record && was && !was.listed && was.state !== 'failed') outcomes({ start, outcome: 'abandoned' });
  });
}

function startOf({ timeline, start }: SandboxRecord): string {
  return 'claimed' in timeline ? 'pool' : (start ?? 'none');
}

/** Only of phases that the node itself has seen; what a guest says of its boot is not for figures. */
export function phaseSeconds(timeline: Readonly<Record<string, number>>): readonly (readonly [string, number])[] {
  return PHASES.flatMap(([phase, after]) => {
    const at = timeline[phase];
    const begun = after.flatMap((each) => timeline[each] ?? []);
    // A machine of a pool was launched before its pod was asked for.
    const asked = timeline['asked'] ?? Number.POSITIVE_INFINITY;
    if (at === undefined || begun.length === 0 || at < asked) return [];
    return [[phase, Math.max(0, at - Math.max(...begun)) / 1000] as const];
  });
}

function measurePools(meters: Meters, pool: SandboxFigures['pool']): void {
  const each = (read: (view: PoolView) => number) => (): readonly Reading[] =>
    pool.view().map((view): Reading => [{ pool: view.name }, read(view)]);
  meters.read('gauge', 'infralet_pool_machines', 'Machines in a pool, by state.', ['pool', 'state'], () =>
    pool.view().flatMap(({ name, waiting, starting }): readonly Reading[] => [
      [{ pool: name, state: 'waiting' }, waiting],
      [{ pool: name, state: 'starting' }, starting],
    ]),
  );
  meters.read(
    'gauge',
    'infralet_pool_target',
    'How many a pool should have.',
    ['pool'],
    each(({ target }) => target.size),
  );
  const claims = each((view) => view.claims);
  meters.read('counter', 'infralet_pool_claims_total', 'Pods that got a machine of the pool.', ['pool'], claims);
  const misses = each((view) => view.misses);
  meters.read('counter', 'infralet_pool_misses_total', 'Pods that fitted and found none.', ['pool'], misses);
  const failed = each((view) => view.failed);
  meters.read('counter', 'infralet_pool_failures_total', 'Machines that failed while they waited.', ['pool'], failed);
}

/** Namespaces are the tenants' to name: so many have a figure of their own. */
const MAX_NAMESPACES = 100;

function costs(store: SandboxStore, provider: Pick<Provider, 'hourlyPrice'>): readonly Reading[] {
  const sums = new Map<string, number>();
  for (const { record } of store.all()) {
    if (record.machine !== 'launched') continue;
    const price = record.purchase?.pricePerHour ?? provider.hourlyPrice?.(record.shape);
    const namespace = record.pool === '' ? record.podNamespace : '_pool';
    if (price !== undefined) sums.set(namespace, (sums.get(namespace) ?? 0) + price);
  }
  const sorted = [...sums].toSorted((a, b) => b[1] - a[1]);
  const rest = sorted.slice(MAX_NAMESPACES).reduce((sum, [, price]) => sum + price, 0);
  return [
    ...sorted.slice(0, MAX_NAMESPACES).map(([namespace, price]): Reading => [{ namespace }, price]),
    ...(rest > 0 ? [[{ namespace: '_other' }, rest] as const] : []),
  ];
}
