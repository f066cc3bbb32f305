/** The composition root: the only place that makes the services, in the order they need each other. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { adminSocket } from './admin/protocol.ts';
import { startAdminServer, type TemplateAdmin } from './admin/server.ts';
import { errorMessage } from './base/errors.ts';
import { ensureDirectory } from './base/files.ts';
import { systemClock } from './base/time.ts';
import { ownerTags, type Provider } from './cloud/contract.ts';
import { ProviderHealth } from './cloud/health.ts';
import { loadProvider } from './cloud/loader.ts';
import type { Config } from './config/schema.ts';
import type { Condition, RuntimeState } from './cri/deps.ts';
import { observeCalls } from './cri/observe.ts';
import { createCriServer } from './cri/server.ts';
import { createDialer } from './guest/dialer.ts';
import { readGuestManifest } from './guest-image/manifest.ts';
import { linuxOn } from './image/platform.ts';
import { createImageService, imageDirectory } from './image/store-service.ts';
import { CniNetwork } from './network/cni-network.ts';
import type { PodNetwork } from './network/pod-network.ts';
import { startNodeRuntime } from './node-runtime.ts';
import { openPki } from './pki/authority.ts';
import { loadCri } from './rpc/load.ts';
import { explainSize, parseFootprint } from './sandbox/explain.ts';
import { type NodeFacts, parseResolvConf } from './sandbox/guest-config.ts';
import { machineShape } from './sandbox/sizing.ts';
import { Journal } from './state/journal.ts';
import { PodFiles } from './state/pod-files.ts';
import { createStreamingServer } from './streaming/server.ts';
import type { Logger } from './telemetry/log.ts';
import type { Meters } from './telemetry/meters.ts';
import type { Tracer } from './telemetry/trace.ts';
import { programVersion } from './version.ts';

/** Resolves when the CRI is served. Disposing drains the calls and stops; machines go on without the daemon. */
export async function startDaemon(config: Config, log: Logger, signal: AbortSignal): Promise<AsyncDisposable> {
  const clock = systemClock;
  const version = await programVersion();
  await ensureDirectory(config.stateDir, 0o700);
  await using stack = new AsyncDisposableStack();

  const journal = stack.use(new Journal(join(config.stateDir, 'journal.db')));
  // A token is worth nothing once its machine's certificate would have run out.
  journal.forgetTokensBefore(clock.now() - config.pki.leafLife);
  const pki = await openPki({ ...config.pki, stateDir: config.stateDir, cluster: config.cluster, clock, log });
  const meters = await openMetrics(config, version, log, stack);
  const tracer = await openTracing(config, version, stack);
  const images = stack.use(
    await createImageService({
      ...{ config: config.image, stateDir: config.stateDir, log, clock, meters },
      platform: linuxOn(config.machine.architecture),
    }),
  );
  const network = new CniNetwork({
    ...config.network,
    timeoutMs: config.network.timeout,
    stateDir: config.stateDir,
    log: log.child({ component: 'network' }),
  });
  const provider = stack.use(await startProvider(config, log, signal));
  const dialer = createDialer({
    pki,
    limits: config.guest,
    tokens: { consume: (hash) => journal.consumeToken(hash, clock.now()) },
    maxMessage: config.server.maxMessage,
    leaseMs: provider.leased ? config.machine.lease : 0,
    clock,
    log: log.child({ component: 'guest' }),
  });
  const node = await nodeFacts(config);
  const runtime = stack.use(
    startNodeRuntime({
      ...{ config, node, cri: loadCri(), journal, provider, network, dialer, images, clock, log, meters, tracer },
      podFiles: new PodFiles(join(config.stateDir, 'pods')),
      guestImage: async () => await guestImage(config),
    }),
  );
  const health = stack.use(new ProviderHealth({ provider, everyMs: config.reconciler.providerCheck, clock }));
  const streaming = stack.use(await createStreamingServer({ config: config.streaming, log, clock }));
  const { sandboxes, containers, stats, events, list, pools, describe, why } = runtime;
  stack.use(
    await startAdminServer({
      path: adminSocket(config.server.socket),
      images,
      list,
      pools,
      doctor: (doctor) => provider.doctor(doctor),
      describe,
      explainSize: async (pod, explain) => await explainSize(parseFootprint(pod), config, provider, explain),
      orphans: runtime.orphans,
      volumes: runtime.volumes,
      why,
      templates: templateAdmin(config, provider),
      drainMs: config.server.drain,
      log,
      clock,
    }),
  );
  stack.use(
    await createCriServer({
      config,
      log,
      clock,
      version,
      sandboxes,
      containers,
      images,
      stats,
      imageDirectory: imageDirectory(config.stateDir),
      events,
      streaming,
      observe: observeCalls({ meters, tracer, traceOf: runtime.traceOf }),
      runtimeStatus: (status) =>
        runtimeState(config, provider.directPods === true ? undefined : network, health, status),
    }),
  );
  return stack.move();
}

/** Undefined where nobody scrapes; the library is loaded only when it is wanted. */
async function openMetrics(
  { metrics: { address, port } }: Config,
  version: string,
  log: Logger,
  stack: AsyncDisposableStack,
): Promise<Meters | undefined> {
  if (port === undefined) return undefined;
  const { startMetrics } = await import('./telemetry/metrics.ts');
  return stack.use(await startMetrics({ address, port, version, log })).meters;
}

/** Undefined where no collector is named: OpenTelemetry costs some 25 MB of memory. */
async function openTracing(
  { tracing, cluster, node }: Config,
  version: string,
  stack: AsyncDisposableStack,
): Promise<Tracer | undefined> {
  const { endpoint } = tracing;
  if (endpoint === undefined) return undefined;
  const { startTracing } = await import('./telemetry/otlp.ts');
  return stack.use(startTracing({ ...tracing, endpoint, cluster, node, version }));
}

async function startProvider(config: Config, log: Logger, signal: AbortSignal): Promise<Provider> {
  const module = await loadProvider(config.provider);
  const settings = module.parseConfig(config.providers[config.provider]);
  const stateDir = join(config.stateDir, 'providers', module.name);
  await ensureDirectory(stateDir, 0o700);
  const context = {
    log: log.child({ component: 'provider', provider: module.name }),
    clock: systemClock,
    stateDir,
    guestImageDir: config.guestImageDir,
    owner: ownerTags(config.cluster, config.node),
  };
  return await module.create(settings, context, signal);
}

function templateAdmin(config: Config, { clone }: Provider): TemplateAdmin | undefined {
  if (!clone || config.isolation.templateSharing === 'off') return undefined;
  const usual = machineShape(null, null, config.machine);
  return {
    build: async (signal) => await clone.prepare(usual, signal),
    list: async (signal) => await clone.list(signal),
    remove: async (id, signal) => await clone.remove(id, signal),
  };
}

async function guestImage({ guestImageDir }: Config): Promise<string> {
  return await readGuestManifest(guestImageDir).then(
    ({ imageDigest }) => imageDigest,
    () => '',
  );
}

/** What pods are told of their node. */
async function nodeFacts(config: Config): Promise<NodeFacts> {
  const resolver = await readFile('/etc/resolv.conf', 'utf8').catch(() => '');
  return { hostname: config.node, dns: parseResolvConf(resolver) };
}

/** For the CRI's Status, where pods of direct links need no network of the node's: asked every few seconds, so it looks and does not try anything. */
async function runtimeState(
  config: Config,
  network: PodNetwork | undefined,
  health: ProviderHealth,
  signal: AbortSignal,
): Promise<RuntimeState> {
  const guest = await readGuestManifest(config.guestImageDir).then(
    ({ architecture }) => otherArchitecture(architecture, config),
    (error: unknown) => errorMessage(error),
  );
  const [pods, provider] = await Promise.all([
    network?.ready(signal) ?? { ok: true, reason: '' },
    health.problem(signal),
  ]);
  return {
    runtime: runtimeCondition(guest, provider),
    network: { ok: pods.ok, reason: pods.ok ? '' : 'NetworkPluginNotReady', message: pods.reason },
    info: { provider: config.provider, cluster: config.cluster, node: config.node, stateDir: config.stateDir },
  };
}

function otherArchitecture(architecture: string, { guestImageDir, machine }: Config): string {
  if (architecture === machine.architecture) return '';
  return `the guest image in ${guestImageDir} is made for ${architecture}, machine.architecture says ${machine.architecture}`;
}

/** The image comes first: without it nothing else is worth a look. */
function runtimeCondition(guest: string, provider: string): Condition {
  if (guest !== '') return { ok: false, reason: 'GuestImageMissing', message: guest };
  if (provider !== '') return { ok: false, reason: 'ProviderNotReady', message: provider };
  return { ok: true, reason: '', message: '' };
}
