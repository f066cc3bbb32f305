/** Follows the containers in their machines: states from events and re-reads, logs as they grow, exits in good order. */
import { errorMessage } from '../base/errors.ts';
import { KeyedRunner } from '../base/exclusive.ts';
import type { ContainerId, SandboxId } from '../base/ids.ts';
import { KeyedLock } from '../base/keyed-lock.ts';
import { type Clock, nanos } from '../base/time.ts';
import type { ContainerStatus__Output } from '../gen/runtime/v1/ContainerStatus.ts';
import type { AgentChannel, GuestEvent } from '../guest/channel.ts';
import type { Sessions } from '../sandbox/session.ts';
import type { ContainerHooks } from '../sandbox/steps.ts';
import type { SandboxStore } from '../sandbox/store.ts';
import type { Logger } from '../telemetry/log.ts';
import type { MountCarrier } from '../volume/mounts.ts';
import { bringMessage } from './exits.ts';
import { CONTAINER_LABEL, guestLogName } from './guest-config.ts';
import type { GuestImages } from './images.ts';
import type { ContainerLogs } from './logs.ts';
import { changeFromGuest, changeWhenLost, factsFromGuest, type GuestFacts } from './status.ts';
import type { ContainerStore } from './store.ts';

/** A relayed call that should be quick; emulated machines are ten times slower than real ones. */
const CALL_MS = 120_000;
/** The event of an exit follows the end of its log within this time, on any but a hopelessly busy machine. */
const EVENT_MS = 2000;

export interface ContainerObserverDeps {
  readonly store: ContainerStore;
  readonly sandboxes: SandboxStore;
  readonly sessions: Sessions;
  readonly guestImages: GuestImages;
  readonly mounts: MountCarrier;
  readonly logs: ContainerLogs;
  readonly clock: Clock;
  readonly log: Logger;
}

export class ContainerObserver implements ContainerHooks, AsyncDisposable {
  readonly #deps: ContainerObserverDeps;
  readonly #store: ContainerStore;
  readonly #log: Logger;
  /** What the records do not hold of the guests' statuses: user, resources in force. */
  readonly #guestFacts = new Map<ContainerId, GuestFacts>();
  /** Statuses of events that wait for their turn: the newest of each container, so that a flood costs no memory. */
  readonly #newest = new Map<ContainerId, ContainerStatus__Output>();
  readonly #statuses: KeyedRunner<ContainerId>;
  readonly #resyncs: KeyedRunner<SandboxId>;
  readonly #creating = new Set<string>();
  /** Containers whose log has ended, and whose exit should be told by an event at any moment. */
  readonly #awaited = new Set<ContainerId>();
  readonly #lock = new KeyedLock<ContainerId>();
  readonly #stop = new AbortController();
  readonly #background = new Set<Promise<void>>();

  constructor(deps: ContainerObserverDeps) {
    this.#deps = deps;
    this.#store = deps.store;
    this.#log = deps.log.child({ component: 'container' });
    const { clock } = deps;
    const onError = (_key: string, error: unknown): undefined => {
      this.#log.warn('following a guest failed', { reason: errorMessage(error) });
    };
    this.#statuses = new KeyedRunner<ContainerId>({ clock, work: (id, stop) => this.#applyNewest(id, stop), onError });
    this.#resyncs = new KeyedRunner<SandboxId>({ clock, work: (id, stop) => this.#resync(id, stop), onError });
  }

  /** While it is held, a resync leaves the container alone: its creation is still under way. */
  creating(id: ContainerId): Disposable {
    this.#creating.add(id);
    return { [Symbol.dispose]: () => this.#creating.delete(id) };
  }

  guestFacts(id: ContainerId): GuestFacts | undefined {
    return this.#guestFacts.get(id);
  }

  /** Events and resyncs of a session; never throws. */
  onEvent(sandboxId: SandboxId, event: GuestEvent): void {
    if (event.kind === 'container') {
      // Only containers that this sandbox owns: a guest cannot speak for another one's.
      const mine = new Map(this.#store.ofSandbox(sandboxId).map((entry) => [entry.record.guestId, entry.record.id]));
      for (const status of event.event.containersStatuses) {
        const id = mine.get(status.id);
        if (id === undefined) continue;
        this.#newest.set(id, status);
        this.#statuses.trigger(id);
      }
    } else if (event.kind === 'resync') {
      this.#resyncs.trigger(sandboxId);
    }
  }

  async #applyNewest(id: ContainerId, signal: AbortSignal): Promise<undefined> {
    const status = this.#newest.get(id);
    this.#newest.delete(id);
    if (status) await this.#apply(id, status, signal);
  }

  #later(work: Promise<void>): void {
    const done = work
      .catch((error: unknown) => {
        if (!this.#stop.signal.aborted) this.#log.warn('following a guest failed', { reason: errorMessage(error) });
      })
      .finally(() => this.#background.delete(done));
    this.#background.add(done);
  }

  /** Reads everything anew: after a reconnect, a restart, or lost events. */
  async #resync(sandboxId: SandboxId, signal: AbortSignal): Promise<undefined> {
    const channel = this.#deps.sessions.get(sandboxId);
    if (!channel || this.#deps.sandboxes.get(sandboxId)?.record.guestSandboxId === '') return;
    const options = { signal, timeoutMs: CALL_MS };
    // What is known is noted before the guest is asked: a container made meanwhile is not in the answer and not lost.
    const known = this.#store.ofSandbox(sandboxId).filter(({ record }) => !this.#creating.has(record.id));
    const { containers } = await channel.cri('ListContainers', {}, options);
    await this.#deps.mounts.resume(
      sandboxId,
      known.filter(({ record }) => record.guestId !== '').flatMap(({ config }) => config.mounts),
      channel,
      signal,
    );
    const inGuest = new Set(containers.map((container) => container.id));
    for (const { record } of known) {
      if (record.guestId === '') {
        // A creation that a crash cut short: its caller never learned the id.
        this.#store.remove(record.id);
      } else if (record.removing) {
        // A removal that was cut short: nobody lists it, so nobody asks again.
        if (inGuest.has(record.guestId)) await channel.cri('RemoveContainer', { containerId: record.guestId }, options);
        await channel.removeLog(guestLogName(record.id), options);
        await this.forgetContainer(record.id);
        this.#store.remove(record.id);
      } else if (inGuest.has(record.guestId)) {
        await this.refresh(record.id, channel, signal);
        this.#deps.logs.follow(record.id);
      } else if (record.state !== 'CONTAINER_EXITED') {
        this.#store.update(
          record.id,
          changeWhenLost(record, 'containerd in the machine lost it', nanos(this.#deps.clock.now())),
        );
      }
    }
    for (const { id, labels } of containers) {
      const owner = this.#store.find(labels[CONTAINER_LABEL] ?? '');
      if (owner?.record.guestId === id || this.#creating.has(labels[CONTAINER_LABEL] ?? '')) continue;
      this.#log.info('removing a container that a crash left in a machine', { sandboxId });
      await channel.cri('RemoveContainer', { containerId: id }, options);
    }
  }

  /**
   * Its exit should be told by an event. containerd 1.7 gives events to whoever asked first, even if that was an agent that
   * has been killed since: one may be lost, so the status is read when none has come.
   */
  logEnded(id: ContainerId): void {
    // A guest may say it again and again.
    if (this.#awaited.has(id)) return;
    this.#awaited.add(id);
    this.#later(
      (async () => {
        await this.#deps.clock.sleep(EVENT_MS, this.#stop.signal);
        this.#awaited.delete(id);
        const record = this.#store.find(id)?.record;
        const channel = record && this.#deps.sessions.get(record.sandboxId);
        if (record?.state === 'CONTAINER_RUNNING' && channel) await this.refresh(id, channel, this.#stop.signal);
      })(),
    );
  }

  async ending(sandboxId: SandboxId, signal: AbortSignal): Promise<void> {
    const channel = this.#deps.sessions.get(sandboxId);
    if (!channel) return;
    const running = this.#store.ofSandbox(sandboxId).filter(({ record }) => record.state === 'CONTAINER_RUNNING');
    const options = { signal, timeoutMs: CALL_MS };
    await Promise.all(running.map(({ record }) => this.#deps.logs.release(record.id, channel, options)));
  }

  async refresh(id: ContainerId, channel: AgentChannel, signal: AbortSignal): Promise<void> {
    const entry = this.#store.find(id);
    if (!entry) return;
    const { status } = await channel.cri(
      'ContainerStatus',
      { containerId: entry.record.guestId },
      { signal, timeoutMs: CALL_MS },
    );
    if (status) await this.#apply(id, status, signal);
  }

  /** Takes over a guest's status; an exit is told only when log and last message are on the node. */
  async #apply(id: ContainerId, status: ContainerStatus__Output, signal: AbortSignal): Promise<void> {
    using _held = await this.#lock.acquire(id, signal);
    const entry = this.#store.find(id);
    if (!entry) return;
    const { record } = entry;
    this.#guestFacts.set(id, factsFromGuest(status));
    if (status.state === 'CONTAINER_EXITED' && !record.logDone) {
      const end = await this.#deps.logs.end(id, signal);
      const channel = this.#deps.sessions.get(record.sandboxId);
      // Without a channel nobody can say what is missing: all is read anew over the next one.
      if (!channel || end === 'stopped') return;
      await bringMessage(entry, channel, this.#log, signal);
      this.#store.update(id, { logDone: end === 'complete' });
    }
    // An exit is final: a late event of the start must not undo it.
    if (record.state === 'CONTAINER_EXITED') return;
    const change = changeFromGuest(status, this.#interruption(record.sandboxId));
    if (change.state !== record.state || change.startedAt !== record.startedAt) this.#store.update(id, change);
  }

  #interruption(id: SandboxId): string | undefined {
    return this.#deps.sandboxes.get(id)?.record.interruption;
  }

  async forgetContainer(id: ContainerId): Promise<void> {
    this.#guestFacts.delete(id);
    await this.#deps.logs.forget(id);
  }

  busy(sandboxId: SandboxId): boolean {
    return this.#store.ofSandbox(sandboxId).some(({ record }) => record.guestId !== '' && !record.logDone);
  }

  async drain(sandboxId: SandboxId, signal: AbortSignal): Promise<void> {
    const channel = this.#deps.sessions.get(sandboxId);
    if (!channel) return;
    for (const { record } of this.#store.ofSandbox(sandboxId)) {
      if (record.guestId !== '' && !record.logDone) await this.refresh(record.id, channel, signal);
    }
  }

  lost(sandboxId: SandboxId, reason: string): void {
    const now = nanos(this.#deps.clock.now());
    for (const { record } of this.#store.ofSandbox(sandboxId)) {
      if (record.state !== 'CONTAINER_EXITED') {
        this.#store.update(record.id, changeWhenLost(record, reason, now, this.#interruption(sandboxId)));
      }
      this.#later(this.forgetContainer(record.id));
    }
    this.#deps.guestImages.forget(sandboxId);
    this.#deps.mounts.forget(sandboxId);
  }

  async forget(sandboxId: SandboxId): Promise<void> {
    for (const { record } of this.#store.ofSandbox(sandboxId)) {
      await this.forgetContainer(record.id);
    }
    this.#store.forgetSandbox(sandboxId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#statuses[Symbol.asyncDispose](), this.#resyncs[Symbol.asyncDispose]()]);
    await Promise.allSettled(this.#background);
  }
}
