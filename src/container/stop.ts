/** Ends a container in its machine: its stop signal, its grace, SIGKILL. */
import { constants } from 'node:os';
import { InfraletError } from '../base/errors.ts';
import type { ContainerId } from '../base/ids.ts';
import { type Clock, elapsed, until } from '../base/time.ts';
import type { Signal__Output } from '../gen/runtime/v1/Signal.ts';
import type { AgentChannel } from '../guest/channel.ts';
import { pastDyingShim } from './dying-shim.ts';
import type { ContainerLogs } from './logs.ts';
import type { ContainerObserver } from './observer.ts';
import type { ContainerEntry, ContainerStore } from './store.ts';

/** A relayed call that should be quick; emulated machines are ten times slower than real ones. */
const CALL_MS = 120_000;
/** After a stop's grace the container was killed; one that still is there then waits for its log. */
const KILLED_MS = 2000;
/** containerd hears of an end within some hundreds of milliseconds, in an emulated machine that is busy within seconds. */
const TOLD_MS = 20_000;
/** Between two questions to the machine. */
const PAUSE_MS = 100;
/** Between two looks at what events have told; in memory. */
const LOOK_MS = 20;

/** As C libraries and container runtimes number them. */
const RTMIN = 34;
const RTMAX = 64;

export interface StopDeps {
  readonly store: ContainerStore;
  readonly logs: ContainerLogs;
  readonly clock: Clock;
  readonly observer: Pick<ContainerObserver, 'refresh'>;
}

export async function stopInGuest(
  deps: StopDeps,
  { record, config }: ContainerEntry,
  graceMs: number,
  channel: AgentChannel,
  signal: AbortSignal,
): Promise<void> {
  const number = signalNumber(config.stopSignal);
  if (number !== undefined && graceMs > 0 && record.state === 'CONTAINER_RUNNING') {
    if (await endsBySignal(deps, record, number, graceMs, channel, signal)) return;
    await stopByContainerd(deps, record, 0, channel, signal);
  } else {
    await stopByContainerd(deps, record, graceMs, channel, signal);
  }
  await untilTold(deps, record.id, channel, signal);
}

/** containerd 1.7 answers at once when the process is gone already, and may still show it as running. */
async function untilTold(
  { store, clock, observer }: StopDeps,
  id: ContainerId,
  channel: AgentChannel,
  signal: AbortSignal,
): Promise<void> {
  const begun = clock.now();
  const told = async (): Promise<true | undefined> => {
    await observer.refresh(id, channel, signal);
    if (store.find(id)?.record.state !== 'CONTAINER_RUNNING') return true;
    if (elapsed(clock, begun) < TOLD_MS) return undefined;
    throw new InfraletError(
      'DEADLINE_EXCEEDED',
      `container ${id} was stopped, and its machine still shows it as running`,
      {
        hint: 'ask again; if it stays so, stop the pod',
      },
    );
  };
  await until(told, { everyMs: PAUSE_MS, clock, signal });
}

/** containerd 1.7 knows the image's signal only, so the agent sends another one. True when the container has ended. */
async function endsBySignal(
  { store, clock }: StopDeps,
  { id, guestId }: ContainerEntry['record'],
  number: number,
  graceMs: number,
  channel: AgentChannel,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await channel.signalContainer(guestId, number, { signal, timeoutMs: CALL_MS });
  } catch (error) {
    // It has ended meanwhile: containerd knows.
    if (error instanceof InfraletError && error.code === 'NOT_FOUND') return false;
    throw error;
  }
  const begun = clock.now();
  const ended = (): boolean | undefined => {
    const state = store.find(id)?.record.state;
    if (state !== 'CONTAINER_RUNNING') return true;
    return elapsed(clock, begun) >= graceMs ? false : undefined;
  };
  return await until(ended, { everyMs: LOOK_MS, clock, signal });
}

async function stopByContainerd(
  { logs, clock }: StopDeps,
  { id, guestId }: ContainerEntry['record'],
  graceMs: number,
  channel: AgentChannel,
  signal: AbortSignal,
): Promise<void> {
  const options = { signal, timeoutMs: graceMs + CALL_MS };
  const stopped = new AbortController();
  const release = clock
    .sleep(graceMs + KILLED_MS, AbortSignal.any([signal, stopped.signal]))
    .then(() => logs.release(id, channel, options));
  release.catch(() => undefined);
  try {
    const timeout = String(Math.round(graceMs / 1000));
    await pastDyingShim(() => channel.cri('StopContainer', { containerId: guestId, timeout }, options), clock, signal);
  } finally {
    stopped.abort();
  }
}

/** Undefined: the runtime's default, which is the image's signal, else SIGTERM. */
export function signalNumber(name: Signal__Output): number | undefined {
  if (name === 'SIGNAL_RUNTIME_DEFAULT') return undefined;
  const [, base, sign, distance] = /^SIGNAL_(SIG[A-Z0-9]*?)(?:(PLUS|MINUS)(\d+))?$/.exec(name) ?? [];
  if (base === 'SIGRTMIN') return RTMIN + Number(distance ?? 0);
  if (base === 'SIGRTMAX') return RTMAX - Number(distance ?? 0);
  // Old names of others.
  const known = base === 'SIGCLD' ? 'SIGCHLD' : base;
  const number =
    sign === undefined ? Object.entries(constants.signals).find(([each]) => each === known)?.[1] : undefined;
  if (number !== undefined) return number;
  throw new InfraletError('INVALID_ARGUMENT', `there is no signal ${name}`);
}
