/** Why a pod is as it is: for `infralet why`, from the journal, the reconciler and the machine's console. */
import type { Clock } from '../base/time.ts';
import type { Provider } from '../cloud/contract.ts';
import type { Journal } from '../state/journal.ts';
import { traceIdOf } from '../telemetry/trace.ts';
import { consoleTail } from './console.ts';
import { isReady, podIps, type SandboxRecord } from './record.ts';
import type { StartKind, StartupGate } from './startup-gate.ts';
import type { SandboxStore } from './store.ts';
import { type WhyEvent, whyEvents } from './why-events.ts';
import { type Found, findSandboxes } from './why-find.ts';

export interface WhyDeps {
  readonly store: SandboxStore;
  readonly journal: Journal;
  readonly provider: Provider;
  readonly reconciler: { failures(id: SandboxRecord['id']): number };
  readonly gate: Pick<StartupGate, 'figures'>;
  readonly sessions: { get(id: SandboxRecord['id']): unknown };
  /** The configuration's reconciler.launchConcurrency. */
  readonly launchConcurrency: number;
  readonly clock: Clock;
}

const CONSOLE_BYTES = 4096;

/** JSON-able. Throws NOT_FOUND. */
export async function whySandbox(deps: WhyDeps, text: string, signal: AbortSignal): Promise<object> {
  const { found, others } = findSandboxes(deps, text);
  const { record, removedAt } = found;
  const now = deps.clock.now();
  const events = whyEvents(record, deps.journal.steps(record.id), now, removedAt !== undefined);
  const verdict = verdictOf(deps, found, events);
  const instanceId = record.machine === 'launched' && removedAt === undefined ? record.instanceId : undefined;
  const console =
    record.console ??
    (instanceId === undefined ? '' : await consoleTail(deps.provider, instanceId, CONSOLE_BYTES, signal));
  return {
    ...summary(found),
    runtimeHandler: record.runtimeHandler,
    instanceId: record.instanceId ?? '',
    start: 'claimed' in record.timeline ? 'pool' : (record.start ?? ''),
    purchase: record.purchase ?? null,
    shape: record.shape,
    podIp: podIps(record)[0] ?? '',
    traceId: traceIdOf(record.traceparent) ?? '',
    verdict,
    events,
    consoleTail: console,
    others: others.map(summary),
  };
}

function summary({ record, removedAt }: Found) {
  const { id, pool, podUid, podName, podNamespace, attempt, state, wanted, reason, lastError, createdAt } = record;
  return {
    ...{ id, pool, podUid, podName, podNamespace, attempt, state, wanted, reason, lastError, createdAt },
    removedAt: removedAt ?? null,
  };
}

interface Verdict {
  /** What an operator wants to know first. */
  readonly kind: 'ready' | 'waiting' | 'failed' | 'stopped' | 'removed';
  readonly text: string;
  /** What to do next; empty: nothing. */
  readonly next: string;
}

function verdictOf(deps: WhyDeps, { record, removedAt }: Found, events: readonly WhyEvent[]): Verdict {
  if (record.state === 'failed') {
    const step = events.findLast(({ kind, outcome }) => kind === 'step' && outcome === 'failed');
    const where = step ? `${step.name} failed: ` : '';
    const text = `${where}${record.reason}`;
    return { kind: 'failed', text, next: 'the kubelet asks again by itself, with another attempt of the pod' };
  }
  if (removedAt !== undefined) return gone(record);
  if (record.wanted !== 'ready') return ending(deps, record, events);
  if (isReady(record)) {
    if (deps.sessions.get(record.id) !== undefined) return { kind: 'ready', text: 'the pod is ready', next: '' };
    return {
      kind: 'waiting',
      text: `the pod runs, but the channel to its machine is lost and being made again${lastError(deps, record)}`,
      next: 'if it stays so, look at the console below, and whether this node reaches the machine',
    };
  }
  if (record.interruption !== undefined && record.state === 'ready') {
    const text = `${record.interruption}; its containers are being stopped`;
    return { kind: 'waiting', text, next: 'the kubelet makes the pod anew by itself' };
  }
  return { kind: 'waiting', text: `${waitsFor(deps, record, events)}${lastError(deps, record)}`, next: '' };
}

function gone(record: SandboxRecord): Verdict {
  if (record.listed) return { kind: 'removed', text: 'the pod was ready, and was removed as asked', next: '' };
  const abandoned = 'abandoned' in record.timeline;
  const text = abandoned ? 'nobody asked for it any more' : 'it was removed before it was ready';
  const next = abandoned ? "compare the kubelet's runtimeRequestTimeout with how long the steps below have taken" : '';
  return { kind: 'removed', text, next };
}

function ending(deps: WhyDeps, record: SandboxRecord, events: readonly WhyEvent[]): Verdict {
  const down = record.machine !== 'launched' && record.machine !== 'launching' && record.network !== 'added';
  if (down && record.state === 'stopped' && record.wanted === 'stopped') {
    return { kind: 'stopped', text: 'the pod was stopped as asked; its machine is gone', next: '' };
  }
  return {
    kind: 'waiting',
    text: `it is being taken down; ${waitsFor(deps, record, events)}${lastError(deps, record)}`,
    next: '',
  };
}

function waitsFor(deps: WhyDeps, record: SandboxRecord, events: readonly WhyEvent[]): string {
  const open = events.filter(({ outcome }) => outcome === 'open');
  if (open.length === 0) return 'it waits for its next try';
  const building = record.wanted === 'ready' && !('turn' in record.timeline) && record.machine === 'none';
  if (building) {
    const kind: StartKind = record.pool === '' ? 'pod' : 'refill';
    const { inside, waiting } = deps.gate.figures[kind];
    if (waiting > 0) {
      return (
        `it waits for its turn to start: ${inside} machines are starting, ${waiting} wait, ` +
        `${deps.launchConcurrency} may start at once (reconciler.launchConcurrency)`
      );
    }
  }
  const steps = open.map(({ name, tookMs }) => `${name} (${((tookMs ?? 0) / 1000).toFixed(1)} s so far)`);
  return `it waits for ${steps.join(' and ')}`;
}

function lastError(deps: WhyDeps, record: SandboxRecord): string {
  if (record.lastError === '') return '';
  const failures = deps.reconciler.failures(record.id);
  return `; the last error${failures > 0 ? ` of ${failures} in a row` : ''}: ${record.lastError}`;
}
