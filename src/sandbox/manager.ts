/** The SandboxService: turns CRI wishes into records and waits for the reconciler to make them true. */
import { InfraletError } from '../base/errors.ts';
import type { SandboxId } from '../base/ids.ts';
import type { Clock } from '../base/time.ts';
import type { Provider } from '../cloud/contract.ts';
import type { Config } from '../config/schema.ts';
import type { LinuxContainerResources__Output } from '../gen/runtime/v1/LinuxContainerResources.ts';
import type { PodSandboxConfig__Output } from '../gen/runtime/v1/PodSandboxConfig.ts';
import type { ChannelDialer } from '../guest/channel.ts';
import type { Logger } from '../telemetry/log.ts';
import { GUEST_CALL_MS } from './guest-run.ts';
import { requireHostPorts } from './host-ports.ts';
import { newRecord, podFacts } from './new-record.ts';
import { machineDemand, requirePlaceable } from './placement.ts';
import type { Pool } from './pool.ts';
import type { Reconciler } from './reconciler.ts';
import { isReady, podIps, type SandboxRecord } from './record.ts';
import { podResources } from './resources.ts';
import type { SandboxService, SandboxView } from './service.ts';
import type { Sessions } from './session.ts';
import type { SandboxEntry, SandboxStore } from './store.ts';

export interface ManagerDeps {
  readonly config: Config;
  readonly provider: Pick<Provider, 'name' | 'explain' | 'directPods'>;
  readonly dialer: ChannelDialer;
  readonly store: SandboxStore;
  readonly reconciler: Reconciler;
  readonly pool: Pick<Pool, 'claim'>;
  readonly sessions: Pick<Sessions, 'get' | 'opened'>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What came with the pod's configuration. */
interface Asked {
  readonly runtimeHandler: string;
  readonly traceparent: string | undefined;
}

export class SandboxManager implements SandboxService, AsyncDisposable {
  readonly #deps: ManagerDeps;
  readonly #stop = new AbortController();
  readonly #background = new Set<Promise<void>>();
  /** Callers of `run` waiting for each sandbox. */
  readonly #callers = new Map<SandboxId, number>();
  /** Lists are asked for every second and rarely change: made anew only then, and only what has changed. */
  #list: { readonly version: number; readonly views: readonly SandboxView[] } | undefined;
  readonly #views = new WeakMap<SandboxRecord, SandboxView>();

  constructor(deps: ManagerDeps) {
    this.#deps = deps;
  }

  async run(
    config: PodSandboxConfig__Output,
    runtimeHandler: string,
    signal: AbortSignal,
    traceparent?: string,
  ): Promise<SandboxId> {
    return await this.#run(config, { runtimeHandler, traceparent }, true, signal);
  }

  async #run(
    config: PodSandboxConfig__Output,
    asked: Asked,
    poolToo: boolean,
    signal: AbortSignal,
  ): Promise<SandboxId> {
    const { metadata } = config;
    if (!metadata) throw new InfraletError('INVALID_ARGUMENT', 'config.metadata: must be given');
    const known = this.#deps.store.byAttempt(metadata.uid, metadata.attempt)?.record;
    if (known && (known.wanted !== 'ready' || known.state === 'failed')) {
      // The ended attempt keeps its name until it is removed; a late retry of its own caller waits for that.
      // One that failed before anybody could see it, with no caller left who would have it removed, is in nobody's way.
      if (!known.listed && known.state === 'failed' && known.wanted === 'ready') this.#want(known.id, 'removed');
      else if (known.listed || known.wanted !== 'removed') {
        throw new InfraletError(
          'ALREADY_EXISTS',
          `attempt ${metadata.attempt} of pod ${metadata.namespace}/${metadata.name} exists as ${known.id} and has ended`,
          { hint: `remove it first: crictl rmp ${known.id}` },
        );
      }
      await this.#gone(known.id, signal);
      // Looks again: another caller that waited for the same may have begun the next one.
      return await this.#run(config, asked, poolToo, signal);
    }
    const id = known?.id ?? this.#create(config, asked, poolToo);
    try {
      return await this.#waitReady(id, signal);
    } catch (error) {
      // A machine that has waited for long may have died, unseen until it was needed: the pod gets one of its own.
      const record = this.#deps.store.get(id)?.record;
      if (record?.state !== 'failed' || !('claimed' in record.timeline) || signal.aborted) throw error;
      this.#deps.log.warn('a machine from a pool has failed its pod; another one is made', {
        ...{ sandboxId: id, reason: record.reason },
      });
      return await this.#run(config, asked, false, signal);
    }
  }

  #create(config: PodSandboxConfig__Output, { runtimeHandler, traceparent }: Asked, poolToo: boolean): SandboxId {
    const { config: settings, store, clock, reconciler, dialer, pool, provider } = this.#deps;
    const { metadata } = config;
    if (!metadata) throw new InfraletError('INVALID_ARGUMENT', 'config.metadata: must be given');
    if (
      settings.network.hostNetwork === 'reject' &&
      config.linux?.securityContext?.namespaceOptions?.network === 'NODE'
    ) {
      throw new InfraletError(
        'INVALID_ARGUMENT',
        `pod ${metadata.namespace}/${metadata.name} asks for the host's network, which this node refuses`,
        { hint: 'run it without hostNetwork, or set network.hostNetwork to "machine"' },
      );
    }
    requireHostPorts(config, provider);
    const facts = podFacts(metadata, runtimeHandler, clock.now(), traceparent);
    const demand = machineDemand(
      {
        ...{ name: metadata.name, namespace: metadata.namespace, runtimeHandler, annotations: config.annotations },
        ...{ resources: config.linux?.resources ?? null, overhead: config.linux?.overhead ?? null },
      },
      settings,
    );
    requirePlaceable(demand.placement, provider, `${metadata.namespace}/${metadata.name}`);
    const claimed = poolToo ? pool.claim({ facts, ...demand }, config) : undefined;
    if (claimed !== undefined) return claimed;
    const machine = { cluster: settings.cluster, pool: '', enrolToken: dialer.newToken(), ...demand };
    const record = newRecord(facts, machine);
    const { id } = record;
    store.add(record, config);
    reconciler.trigger(id);
    return id;
  }

  async #waitReady(id: SandboxId, signal: AbortSignal): Promise<SandboxId> {
    this.#callers.set(id, (this.#callers.get(id) ?? 0) + 1);
    try {
      return await this.#deps.store.wait(
        id,
        (record) => {
          if (!record) throw new InfraletError('ABORTED', `sandbox ${id} was removed while it was being made`);
          if (record.state === 'failed' || record.wanted !== 'ready') {
            throw new InfraletError(
              'UNKNOWN',
              `pod ${record.podNamespace}/${record.podName}: ${record.reason || 'stopped while it was being made'}`,
              { hint: `all that happened: infralet why ${record.id}`, context: { sandboxId: record.id } },
            );
          }
          return record.state === 'ready' ? id : undefined;
        },
        AbortSignal.any([signal, this.#stop.signal]),
      );
    } catch (error) {
      this.#abandon(id);
      throw error;
    } finally {
      const left = (this.#callers.get(id) ?? 1) - 1;
      if (left === 0) this.#callers.delete(id);
      else this.#callers.set(id, left);
    }
  }

  /** What became of a sandbox that never was ready: failed ones go at once, unfinished ones when nobody asks again. */
  #abandon(id: SandboxId): void {
    if (this.#stop.signal.aborted) return;
    const record = this.#deps.store.get(id)?.record;
    if (!record || record.listed) return;
    if (record.state === 'failed') this.#want(id, 'removed');
    else this.#later(this.#removeUnlessAsked(id));
  }

  async #removeUnlessAsked(id: SandboxId): Promise<void> {
    await this.#deps.clock.sleep(this.#deps.config.reconciler.orphanGrace, this.#stop.signal);
    const record = this.#deps.store.get(id)?.record;
    if (!record || record.listed || this.#callers.has(id)) return;
    this.#deps.log.warn('nobody asks for this sandbox any more; it is removed', { sandboxId: id });
    this.#want(id, 'removed', 'abandoned');
  }

  /** @param phase who wants it so, for the timeline; none for what follows by itself. */
  #want(id: SandboxId, wanted: SandboxRecord['wanted'], phase?: string): void {
    const reached = phase === undefined ? {} : { [phase]: this.#deps.clock.now() };
    this.#deps.store.update(id, { wanted }, reached);
    this.#deps.reconciler.interrupt(id);
  }

  #later(work: Promise<void>): void {
    const done = work
      .catch((error: unknown) => {
        if (!this.#stop.signal.aborted) this.#deps.log.error('background work failed', { error });
      })
      .finally(() => this.#background.delete(done));
    this.#background.add(done);
  }

  async stop(id: string, signal: AbortSignal): Promise<void> {
    const record = this.#findPod(id)?.record;
    if (!record) return;
    if (record.wanted === 'ready') this.#want(record.id, 'stopped', 'stop-asked');
    else this.#deps.reconciler.trigger(record.id);
    await this.#deps.store.wait(record.id, (now) => (now === undefined || isDown(now) ? true : undefined), signal);
  }

  async remove(id: string, signal: AbortSignal): Promise<void> {
    const record = this.#findPod(id)?.record;
    if (!record) return;
    if (record.wanted !== 'removed') this.#want(record.id, 'removed', 'remove-asked');
    else this.#deps.reconciler.trigger(record.id);
    await this.#gone(record.id, signal);
  }

  async updateResources(
    id: string,
    resources: LinuxContainerResources__Output | null,
    overhead: LinuxContainerResources__Output | null,
    signal: AbortSignal,
  ): Promise<void> {
    const record = this.#findPod(id)?.record;
    if (!record?.listed) throw new InfraletError('NOT_FOUND', `there is no pod sandbox ${id}`);
    if (!isReady(record)) throw new InfraletError('FAILED_PRECONDITION', `pod sandbox ${record.id} is not ready`);
    // A pod's overhead is the machine's own affair: it was added to its size and is no limit of the containers.
    if (!resources) {
      if (overhead) return;
      throw new InfraletError('INVALID_ARGUMENT', 'resources: must be set');
    }
    const { overheadMemory } = this.#deps.config.machine;
    const limits = podResources(`${record.podNamespace}/${record.podName}`, resources, record.shape, overheadMemory);
    const channel = await this.#deps.sessions.opened(record.id, signal);
    await channel.configurePodResources(limits, { signal, timeoutMs: GUEST_CALL_MS });
    this.#deps.store.update(record.id, { resources: limits });
  }

  async #gone(id: SandboxId, signal: AbortSignal): Promise<void> {
    await this.#deps.store.wait(id, (record) => (record === undefined ? true : undefined), signal);
  }

  get(id: string): SandboxView {
    const entry = this.#findPod(id);
    if (!entry?.record.listed) throw new InfraletError('NOT_FOUND', `there is no pod sandbox ${id}`);
    return this.view(entry);
  }

  list(): readonly SandboxView[] {
    const { store } = this.#deps;
    if (this.#list?.version !== store.version) {
      const listed = store.all().filter(({ record }) => record.listed);
      this.#list = { version: store.version, views: listed.map((entry) => this.view(entry)) };
    }
    return this.#list.views;
  }

  /** A pod's, by id or by a prefix that only one has: to those who run pods there are no machines in pools. */
  #findPod(id: string): SandboxEntry | undefined {
    return this.#find(id, ({ pool }) => pool === '');
  }

  #find(id: string, may: (record: SandboxRecord) => boolean): SandboxEntry | undefined {
    const { store } = this.#deps;
    const exact = store.find(id);
    if (exact || id === '') return exact && may(exact.record) ? exact : undefined;
    const matches = store.all().filter(({ record }) => record.id.startsWith(id) && may(record));
    if (matches.length > 1) throw new InfraletError('INVALID_ARGUMENT', `more than one sandbox id begins with ${id}`);
    return matches[0];
  }

  /** The same object as long as the record does not change. */
  view({ record, config }: SandboxEntry): SandboxView {
    const known = this.#views.get(record);
    if (known) return known;
    const hostNetwork = config.linux?.securityContext?.namespaceOptions?.network === 'NODE';
    const ready = isReady(record);
    const view: SandboxView = {
      id: record.id,
      config,
      runtimeHandler: record.runtimeHandler,
      ready,
      createdAt: record.createdAt,
      ips: ready && !hostNetwork ? podIps(record) : [],
      info: () => sandboxInfo(record),
    };
    this.#views.set(record, view);
    return view;
  }

  /** Also of sandboxes that are still being made and so are not listed, and of machines in pools. */
  describe(id: string): Readonly<Record<string, unknown>> {
    const entry = this.#find(id, () => true);
    if (!entry) throw new InfraletError('NOT_FOUND', `there is no pod sandbox ${id}`);
    return sandboxInfo(entry.record);
  }

  /** After a start: goes on with every sandbox where the journal left it, and looks after machines from now on. */
  recover(): void {
    for (const { record } of this.#deps.store.all()) {
      this.#deps.reconciler.trigger(record.id);
      if (record.pool === '' && !record.listed && record.wanted === 'ready')
        this.#later(this.#removeUnlessAsked(record.id));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(
      new InfraletError('UNAVAILABLE', 'the daemon is stopping', { hint: 'the same call later will do' }),
    );
    await Promise.allSettled(this.#background);
  }
}

function isDown(record: SandboxRecord): boolean {
  const machineGone = record.machine === 'none' || record.machine === 'gone';
  const networkGone = record.network === 'none' || record.network === 'gone';
  return machineGone && networkGone && (record.state === 'stopped' || record.state === 'failed');
}

function sandboxInfo(record: SandboxRecord): Readonly<Record<string, unknown>> {
  return {
    id: record.id,
    state: record.state,
    pool: record.pool,
    ready: isReady(record),
    listed: record.listed,
    wanted: record.wanted,
    reason: record.reason,
    interruption: record.interruption ?? '',
    lastError: record.lastError,
    podName: record.podName,
    podNamespace: record.podNamespace,
    podUid: record.podUid,
    attempt: record.attempt,
    createdAt: record.createdAt,
    instanceId: record.instanceId ?? '',
    machine: record.shape,
    resources: record.resources ?? null,
    podIp: podIps(record)[0] ?? '',
    netns: record.networkResult?.netns ?? '',
    link: record.link ?? null,
    timeline: Object.entries(record.timeline)
      .map(([phase, at]) => ({ phase, ms: Math.round(at - record.createdAt) }))
      .sort((a, b) => a.ms - b.ms),
  };
}
