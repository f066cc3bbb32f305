/**
 * The newest figures of every pod and container, as their machines send them. Memory only: after a restart the machines
 * send them again. Asks a machine of its own accord when a container has just started there, so that nobody has to wait.
 */
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { ContainerId, SandboxId } from '../base/ids.ts';
import { abortable } from '../base/keyed-lock.ts';
import { type Clock, elapsed } from '../base/time.ts';
import type { ContainerStore } from '../container/store.ts';
import type { Sample__Output } from '../gen/infralet/agent/v1/Sample.ts';
import type { Sessions } from '../sandbox/session.ts';
import type { SandboxStore } from '../sandbox/store.ts';
import type { Logger } from '../telemetry/log.ts';
import { bounded, groupUsage, interfaceUsages, layerUsage, type MachineBounds, rateOf } from './sample.ts';
import type { ContainerUsage, PodUsage, StatsService } from './service.ts';

export interface StatsKeeperDeps {
  readonly sandboxes: SandboxStore;
  readonly containers: ContainerStore;
  readonly sessions: Pick<Sessions, 'get'>;
  readonly config: { readonly interval: number; readonly timeout: number };
  readonly clock: Clock;
  readonly log: Logger;
}

/** A sample that is late by less than half an interval is not worth a call. */
const LATE = 1.5;

export class StatsKeeper implements StatsService, AsyncDisposable {
  readonly #deps: StatsKeeperDeps;
  readonly #log: Logger;
  readonly #pods = new Map<SandboxId, PodUsage>();
  readonly #containers = new Map<ContainerId, ContainerUsage>();
  /** Machines being asked: who asks meanwhile waits for the same answer. */
  readonly #asking = new Map<SandboxId, Promise<void>>();
  readonly #stop = new AbortController();

  constructor(deps: StatsKeeperDeps) {
    this.#deps = deps;
    this.#log = deps.log.child({ component: 'stats' });
    deps.containers.onChange((before, after) => {
      if (!after) {
        if (before) this.#containers.delete(before.record.id);
      } else if (after.record.state === 'CONTAINER_RUNNING' && before?.record.state !== 'CONTAINER_RUNNING') {
        this.soon(after.record.sandboxId);
      }
    });
    deps.sandboxes.onChange((before, after) => {
      if (before && after?.record.state !== 'ready') this.#pods.delete(before.record.id);
    });
  }

  container(id: ContainerId): ContainerUsage | undefined {
    return this.#containers.get(id);
  }

  pod(id: SandboxId): PodUsage | undefined {
    return this.#pods.get(id);
  }

  /** Takes over what a machine sent. */
  take(sandboxId: SandboxId, sample: Sample__Output): void {
    const sandbox = this.#deps.sandboxes.get(sandboxId)?.record;
    if (sandbox?.state !== 'ready') return;
    const machine: MachineBounds = sandbox.shape;
    const at = this.#deps.clock.now();
    const monotonicUs = bounded(sample.monotonicUs);
    const swapTotal = bounded(sample.swapTotal, machine.diskBytes);
    if (sample.pod) {
      const usage = groupUsage(sample.pod, machine, swapTotal);
      const rate = rateOf(this.#pods.get(sandboxId), { cpuUs: usage.cpuUs, monotonicUs }, machine);
      this.#pods.set(sandboxId, { at, usage, ...rate, interfaces: interfaceUsages(sample.interfaces) });
    }
    // Only of containers that this sandbox owns: a guest cannot speak for another one's.
    const mine = new Map(this.#deps.containers.ofSandbox(sandboxId).map(({ record }) => [record.guestId, record.id]));
    for (const given of sample.containers) {
      const id = mine.get(given.id);
      // Each once, so that a long list of the same costs nothing.
      if (id === undefined || !mine.delete(given.id) || !given.usage) continue;
      const before = this.#containers.get(id);
      const usage = groupUsage(given.usage, machine, swapTotal);
      this.#containers.set(id, {
        at,
        usage,
        ...rateOf(before, { cpuUs: usage.cpuUs, monotonicUs }, machine),
        layer: given.layer ? layerUsage(given.layer, machine, at) : before?.layer,
      });
    }
  }

  async freshContainer(id: ContainerId, signal: AbortSignal): Promise<ContainerUsage> {
    const sandboxId = this.#deps.containers.find(id)?.record.sandboxId;
    if (sandboxId === undefined) throw new InfraletError('NOT_FOUND', `there is no container ${id}`);
    return await this.#fresh(sandboxId, () => this.#containers.get(id), `container ${id}`, signal);
  }

  async freshPod(id: SandboxId, signal: AbortSignal): Promise<PodUsage> {
    return await this.#fresh(id, () => this.#pods.get(id), `pod sandbox ${id}`, signal);
  }

  async #fresh<T extends { readonly at: number }>(
    sandboxId: SandboxId,
    newest: () => T | undefined,
    what: string,
    signal: AbortSignal,
  ): Promise<T> {
    const recent = (): T | undefined => {
      const known = newest();
      return known && elapsed(this.#deps.clock, known.at) <= LATE * this.#deps.config.interval ? known : undefined;
    };
    // Twice: a call that was under way may have looked before the container was there.
    for (let tries = 0; tries < 2 && !recent(); tries += 1) {
      try {
        await abortable(this.#ask(sandboxId), signal);
      } catch (error) {
        signal.throwIfAborted();
        const old = newest();
        if (old) return old;
        throw new InfraletError('UNAVAILABLE', `there are no figures of ${what}: ${errorMessage(error)}`, {
          cause: error,
          hint: `see: infralet describe ${sandboxId}`,
        });
      }
    }
    const known = newest();
    if (known) return known;
    throw new InfraletError('UNAVAILABLE', `the machine of ${what} has no figures of it`);
  }

  /** Asks a machine in the background. */
  soon(id: SandboxId): void {
    this.#ask(id).catch((error: unknown) => {
      this.#log.debug('no sample', { sandboxId: id, reason: errorMessage(error) });
    });
  }

  #ask(id: SandboxId): Promise<void> {
    const asking = this.#asking.get(id) ?? this.#askOnce(id).finally(() => this.#asking.delete(id));
    this.#asking.set(id, asking);
    return asking;
  }

  async #askOnce(id: SandboxId): Promise<void> {
    const channel = this.#deps.sessions.get(id);
    if (!channel) throw new InfraletError('UNAVAILABLE', `the channel to the machine of pod sandbox ${id} is not open`);
    this.take(id, await channel.takeSample({ signal: this.#stop.signal, timeoutMs: this.#deps.config.timeout }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#asking.values());
  }
}
