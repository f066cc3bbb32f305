/**
 * The heart of the daemon, put together: stores, sessions, reconciler and the two services, over whatever provider,
 * network, dialer and images it is given. The daemon gives it real ones; simulations give it others.
 */
import { join } from 'node:path';
import { errorMessage } from './base/errors.ts';
import type { Clock } from './base/time.ts';
import type { Provider } from './cloud/contract.ts';
import { measureCloud } from './cloud/meters.ts';
import type { Config } from './config/schema.ts';
import { GuestImages } from './container/images.ts';
import { Interruptions } from './container/interruptions.ts';
import { ContainerLogs } from './container/logs.ts';
import { ContainerManager } from './container/manager.ts';
import { ContainerObserver } from './container/observer.ts';
import type { ContainerService } from './container/service.ts';
import { ContainerStore } from './container/store.ts';
import { containerSummary } from './container/summary.ts';
import { sandboxTraces } from './container/traces.ts';
import { EventFeed, type EventService } from './events/feed.ts';
import type { ChannelDialer } from './guest/channel.ts';
import { judgedDialer } from './guest/conduct.ts';
import { measuredDialer } from './guest/meters.ts';
import { SHARE_DIRECTORY } from './guest-image/manifest.ts';
import type { ImageService } from './image/service.ts';
import type { PodNetwork } from './network/pod-network.ts';
import { keepPods, requireNetworks } from './pod-keeper.ts';
import { containerCodec, sandboxCodec } from './rpc/codecs.ts';
import type { CriPackage } from './rpc/load.ts';
import { type DescribeDeps, describeSandbox, listPools, listSandboxes } from './sandbox/describe.ts';
import type { NodeFacts } from './sandbox/guest-config.ts';
import { Launcher } from './sandbox/launcher.ts';
import { SandboxManager } from './sandbox/manager.ts';
import { measureSandboxes } from './sandbox/meters.ts';
import { observeSteps } from './sandbox/observe-steps.ts';
import { type PodVolumes, podVolumes } from './sandbox/pod-volumes.ts';
import { Pool } from './sandbox/pool.ts';
import { Reconciler } from './sandbox/reconciler.ts';
import type { SandboxService } from './sandbox/service.ts';
import { Sessions } from './sandbox/session.ts';
import { machineShape } from './sandbox/sizing.ts';
import { StartupGate } from './sandbox/startup-gate.ts';
import { SandboxStore } from './sandbox/store.ts';
import { Strikes } from './sandbox/strikes.ts';
import { Sweeper } from './sandbox/sweeper.ts';
import { TemplateKeeper } from './sandbox/templates.ts';
import { whySandbox } from './sandbox/why.ts';
import type { Journal } from './state/journal.ts';
import type { PodFiles } from './state/pod-files.ts';
import { StatsKeeper } from './stats/keeper.ts';
import type { StatsService } from './stats/service.ts';
import type { Logger } from './telemetry/log.ts';
import type { Meters } from './telemetry/meters.ts';
import type { Tracer } from './telemetry/trace.ts';
import { tracedLogger } from './telemetry/traced-log.ts';
import { MountCarrier } from './volume/mounts.ts';

export interface NodeRuntimeOptions {
  readonly config: Config;
  readonly node: NodeFacts;
  readonly cri: CriPackage;
  readonly journal: Journal;
  /** Copies of ready pods, for the day when the journal is lost. */
  readonly podFiles: PodFiles;
  readonly provider: Provider;
  readonly network: PodNetwork;
  readonly dialer: ChannelDialer;
  readonly images: ImageService;
  /** Digest of the guest image that machines are made of now; empty when that is not known. Never rejects. */
  readonly guestImage: () => Promise<string>;
  readonly clock: Clock;
  readonly log: Logger;
  /** Absent: no figures. */
  readonly meters?: Meters | undefined;
  /** Absent: no traces. */
  readonly tracer?: Tracer | undefined;
}

export interface NodeRuntime extends AsyncDisposable {
  readonly sandboxes: SandboxService;
  readonly containers: ContainerService;
  readonly stats: StatsService;
  readonly events: EventService;
  /** `traceparent` of the sandbox that a CRI request is about. */
  readonly traceOf: (request: unknown) => string | undefined;
  /** All sandboxes, also those still being made, JSON-able. */
  readonly list: (signal: AbortSignal) => Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** Pools of machines that wait for pods. */
  readonly pool: Pick<Pool, 'view'>;
  /** The same for people, with what each machine uses, JSON-able. */
  readonly pools: (signal: AbortSignal) => Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** What carries the node's name and belongs to no sandbox. */
  readonly orphans: Pick<Sweeper, 'orphans' | 'remove'>;
  /** Block volumes of the provider in pods' machines. */
  readonly volumes: PodVolumes;
  /** All that is known about a sandbox (id or unique prefix), JSON-able. */
  readonly describe: (id: string, signal: AbortSignal) => Promise<Readonly<Record<string, unknown>>>;
  /** Why a pod is as it is: by the beginning of a sandbox id, by pod uid, name or NAMESPACE/NAME; JSON-able. */
  readonly why: (pod: string, signal: AbortSignal) => Promise<object>;
}

/** A note may quote a provider or a guest. */
const MAX_NOTE = 1000;

/** Reads the journal and goes on with everything in it. Disposing stops the work; machines go on. */
export function startNodeRuntime(options: NodeRuntimeOptions): NodeRuntime {
  const { config, node, journal, provider, network, images, clock, meters, tracer } = options;
  const stack = new AsyncDisposableStack();
  const sandboxStore = new SandboxStore(journal, sandboxCodec(options.cri));
  const containerStore = new ContainerStore(journal, containerCodec(options.cri));
  const judged = judgedDialer(options.dialer, (id, error) => {
    const owner = sandboxStore.find(id)?.record.id;
    if (owner) strikes.strike(owner, error);
  });
  const dialer = meters ? measuredDialer(meters, judged) : judged;
  const traces = sandboxTraces(sandboxStore, containerStore);
  const log = tracer ? tracedLogger(options.log, traces.idOf) : options.log;
  const logged = meters?.counter('infralet_log_bytes_total', 'Bytes of container logs copied from machines.', []);
  const onBad = (what: string) => (id: string, error: unknown) =>
    log.error('a record of the journal cannot be read; it is left alone', { what, id, reason: errorMessage(error) });
  sandboxStore.load(onBad('sandbox'));
  containerStore.load(onBad('container'));
  const restored = keepPods({
    ...{ files: options.podFiles, sandboxes: sandboxStore, containers: containerStore, cri: options.cri, log },
  });

  const guestImages = new GuestImages(images);
  const mounts = new MountCarrier({
    policy: config.policy,
    volume: config.volume,
    shares: {
      directory: join(config.stateDir, 'shares'),
      programs: join(config.guestImageDir, SHARE_DIRECTORY),
    },
    channelOf: (id) => sessions.get(id),
    clock,
    log: log.child({ component: 'volume' }),
  });
  mounts.sweep((id) => (sandboxStore.find(id)?.record.machine ?? 'gone') !== 'gone');
  for (const each of containerStore.all()) mounts.remember(each.record.sandboxId, each.config.mounts);
  // Sessions, observer and reconciler know each other; the closures below are first called when all of them exist.
  const sessions: Sessions = new Sessions({
    clock,
    log: log.child({ component: 'session' }),
    heartbeatMs: config.machine.heartbeat,
    leaseMs: provider.leased ? config.machine.lease : 0,
    waitMs: config.machine.channelWait,
    sampling: { everyMs: config.stats.interval, layerMs: config.stats.layerInterval },
    hooks: {
      onEvent: (id, event) => {
        if (event.kind === 'sample') stats.take(id, event.sample);
        else if (event.kind === 'interruption') interruptions.take(id, event);
        else observer.onEvent(id, event);
      },
      onImageConnection: (id, socket) => images.serveGuest(id, socket),
      onEnd: (id, reason) => {
        log.debug('session ended', { sandboxId: id, reason });
        reconciler.trigger(id);
      },
    },
  });
  const stats = new StatsKeeper({
    sandboxes: sandboxStore,
    containers: containerStore,
    sessions,
    config: config.stats,
    clock,
    log,
  });
  const logs = new ContainerLogs({
    journal,
    store: containerStore,
    sandboxes: sandboxStore,
    sessions,
    config: config.containerLog,
    onEnded: (id) => observer.logEnded(id),
    onLogBytes: logged && ((count) => logged({}, count)),
    clock,
    log,
  });
  const observer = new ContainerObserver({
    store: containerStore,
    sandboxes: sandboxStore,
    sessions,
    guestImages,
    mounts,
    logs,
    clock,
    log,
  });
  const templates =
    provider.clone && config.isolation.templateSharing === 'on'
      ? new TemplateKeeper({
          cloning: provider.clone,
          config: config.reconciler,
          waitMs: config.isolation.templateWait,
          clock,
          log,
        })
      : undefined;
  const launcher = new Launcher({ provider, config: config.reconciler, clock, log, templates });
  const gate = new StartupGate(config.reconciler.launchConcurrency);
  const reconciler: Reconciler = new Reconciler({
    journal,
    observe: observeSteps(meters, tracer),
    deps: {
      config,
      node,
      provider,
      launcher,
      gate,
      network,
      dialer,
      sessions,
      store: sandboxStore,
      containers: observer,
      note: (id, step, text) => journal.addStep(id, clock.now(), step, 'note', text.slice(0, MAX_NOTE)),
      clock,
      log,
    },
  });
  const interruptions = new Interruptions({
    ...{ sandboxes: sandboxStore, store: containerStore, sessions, logs, observer, reconciler, clock, log },
    reserveMs: config.machine.interruptionReserve,
    note: (id, text) => journal.addStep(id, clock.now(), 'machine.interrupted', 'note', text.slice(0, MAX_NOTE)),
  });
  const strikes = new Strikes({
    config: config.guest,
    fail: (id, reason) => reconciler.fail(id, reason),
    note: (id, text) => journal.addStep(id, clock.now(), 'agent.connect', 'note', text.slice(0, MAX_NOTE)),
    clock,
    log,
  });
  sandboxStore.onChange((before, after) => {
    if (before && !after) strikes.forget(before.record.id);
  });
  const { guestImage } = options;
  const pool = new Pool({
    config,
    provider,
    dialer,
    store: sandboxStore,
    sessions,
    reconciler,
    guestImage,
    clock,
    log,
  });
  const sandboxes = new SandboxManager({
    config,
    provider,
    dialer,
    store: sandboxStore,
    reconciler,
    pool,
    sessions,
    clock,
    log,
  });
  const containers = new ContainerManager({
    store: containerStore,
    sandboxes: sandboxStore,
    sessions,
    images,
    guestImages,
    mounts,
    observer,
    logs,
    node,
    clock,
  });
  const events = new EventFeed({
    sandboxes: sandboxStore,
    containers: containerStore,
    view: (entry) => sandboxes.view(entry),
    statuses: (id) => containers.statuses(id),
    maxQueued: config.events.maxQueued,
    clock,
  });
  const sweeper = new Sweeper({ config, nodeName: node.hostname, provider, network, store: sandboxStore, clock, log });

  if (meters) {
    const store = sandboxStore;
    measureSandboxes(meters, { provider, store, sessions, reconciler, gate, launcher, pool, sweeper });
    measureCloud(meters, provider);
  }

  // Disposed in reverse: first nobody asks for anything new, then the work ends, then the channels close.
  stack.use(sessions);
  stack.use(logs);
  stack.use(stats);
  stack.use(mounts);
  stack.use(observer);
  stack.use(reconciler);
  stack.use(interruptions);
  stack.use(sweeper);
  stack.use(sandboxes);
  stack.use(pool);
  if (templates) {
    stack.use(templates);
    templates.want(machineShape(null, null, config.machine));
  }
  sandboxes.recover();
  const stopped = new AbortController();
  const networksChecked = requireNetworks(
    restored,
    { network, sandboxes: sandboxStore },
    (id, reason) => reconciler.fail(id, reason),
    stopped.signal,
  ).catch((error: unknown) => {
    if (!stopped.signal.aborted) log.error('the networks of restored pods could not be looked at', { error });
  });
  stack.defer(async () => {
    stopped.abort();
    await networksChecked;
  });
  pool.start();
  sweeper.start();
  const known: DescribeDeps = {
    store: sandboxStore,
    journal,
    provider,
    sandboxes,
    containersOf: (id) => containerStore.ofSandbox(id).map(containerSummary),
  };
  return {
    sandboxes,
    containers,
    pool,
    pools: (signal) => listPools(provider, pool.view(), signal),
    stats,
    events,
    orphans: sweeper,
    volumes: podVolumes({ store: sandboxStore, journal, provider }),
    traceOf: traces.ofRequest,
    list: (signal) => listSandboxes(known, signal),
    describe: (id, signal) => describeSandbox(known, id, signal),
    why: (pod, signal) =>
      whySandbox(
        {
          ...{ store: sandboxStore, journal, provider, reconciler, gate, sessions, clock },
          launchConcurrency: config.reconciler.launchConcurrency,
        },
        pod,
        signal,
      ),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
