/** The admin service in the daemon: what the command line needs beyond the CRI. */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { errorMessage, InfraletError } from '../base/errors.ts';
import { type Clock, systemClock } from '../base/time.ts';
import type { Check, Cloning, TemplateInfo } from '../cloud/contract.ts';
import type { AdminHandlers } from '../gen/infralet/admin/v1/Admin.ts';
import type { OrphanName__Output } from '../gen/infralet/admin/v1/OrphanName.ts';
import type { PodVolume__Output } from '../gen/infralet/admin/v1/PodVolume.ts';
import type { Template } from '../gen/infralet/admin/v1/Template.ts';
import type { ImageService } from '../image/service.ts';
import { unary } from '../rpc/adapter.ts';
import { CallTracker } from '../rpc/calls.ts';
import { listenUnix } from '../rpc/unix-listener.ts';
import type { PodVolumes } from '../sandbox/pod-volumes.ts';
import { ORPHAN_KINDS, type Orphan, type Sweeper } from '../sandbox/sweeper.ts';
import type { Logger } from '../telemetry/log.ts';
import { loadAdmin } from './protocol.ts';

export interface AdminServerOptions {
  /** See `adminSocket`. */
  readonly path: string;
  readonly images: Pick<ImageService, 'load'>;
  /** All sandboxes, JSON-able. */
  readonly list: (signal: AbortSignal) => Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** The pools with their machines, JSON-able. */
  readonly pools: (signal: AbortSignal) => Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** All that is known about a sandbox (id or unique prefix), JSON-able. Throws NOT_FOUND. */
  readonly describe: (sandboxId: string, signal: AbortSignal) => Promise<Readonly<Record<string, unknown>>>;
  /** Why a pod is as it is, JSON-able. Throws NOT_FOUND. */
  readonly why: (pod: string, signal: AbortSignal) => Promise<object>;
  /** What the provider in use finds of its host or account. */
  readonly doctor: (signal: AbortSignal) => Promise<readonly Check[]>;
  /** What machine a pod would get; JSON-able. */
  readonly explainSize: (podJson: string, signal: AbortSignal) => Promise<object>;
  readonly orphans: Pick<Sweeper, 'orphans' | 'remove'>;
  readonly volumes: PodVolumes;
  /** Templates of the provider; absent when it makes none or the configuration wants none. */
  readonly templates?: TemplateAdmin | undefined;
  /** Milliseconds that calls in progress get when the server is disposed of. */
  readonly drainMs: number;
  readonly log: Logger;
  readonly clock?: Clock;
}

export interface TemplateAdmin extends Pick<Cloning, 'list' | 'remove'> {
  /** The template for machines of the usual size. */
  build(signal: AbortSignal): Promise<TemplateInfo>;
}

/** Root only: loading a file reads it with the daemon's rights. */
const SOCKET_MODE = 0o600;
/** Loading an image of many gigabytes takes minutes; nobody needs to be warned about it. */
const SLOW_MS = 600_000;

/** Serves until disposed of. */
export async function startAdminServer(options: AdminServerOptions): Promise<AsyncDisposable> {
  const clock = options.clock ?? systemClock;
  const log = options.log.child({ component: 'admin' });
  const calls = new CallTracker();
  const adapter = { calls, clock, log, slowMs: () => SLOW_MS };
  const handlers: AdminHandlers = {
    LoadImage: unary(adapter, 'LoadImage', async ({ source, names }, { signal }) => {
      if (source === '') throw new InfraletError('INVALID_ARGUMENT', 'source: must name a file or oci:DIRECTORY');
      const images = await options.images.load(source, names, signal);
      return { images: images.map(({ id, repoTags, size }) => ({ id, tags: [...repoTags], size: String(size) })) };
    }),
    List: unary(adapter, 'List', async (_request, { signal }) => ({
      json: JSON.stringify(await options.list(signal)),
    })),
    ListPools: unary(adapter, 'ListPools', async (_request, { signal }) => ({
      json: JSON.stringify(await options.pools(signal)),
    })),
    Describe: unary(adapter, 'Describe', async ({ sandboxId }, { signal }) => {
      if (sandboxId === '') throw new InfraletError('INVALID_ARGUMENT', 'sandbox_id: must not be empty');
      return { json: JSON.stringify(await options.describe(sandboxId, signal)) };
    }),
    Why: unary(adapter, 'Why', async ({ pod }, { signal }) => {
      if (pod === '') throw new InfraletError('INVALID_ARGUMENT', 'pod: must not be empty');
      return { json: JSON.stringify(await options.why(pod, signal)) };
    }),
    Doctor: unary(adapter, 'Doctor', async (_request, { signal }) => ({
      json: JSON.stringify(await options.doctor(signal)),
    })),
    ListTemplates: unary(adapter, 'ListTemplates', async (_request, { signal }) => ({
      templates: ((await options.templates?.list(signal)) ?? []).map(template),
    })),
    BuildTemplate: unary(adapter, 'BuildTemplate', async (_request, { signal }) => {
      if (!options.templates) {
        throw new InfraletError('FAILED_PRECONDITION', 'this node makes no templates', {
          hint: 'set isolation.templateSharing to "on", with a provider that can clone machines',
        });
      }
      return { template: template(await options.templates.build(signal)) };
    }),
    ExplainSize: unary(adapter, 'ExplainSize', async ({ podJson }, { signal }) => ({
      json: JSON.stringify(await options.explainSize(podJson, signal)),
    })),
    ListOrphans: unary(adapter, 'ListOrphans', async (_request, { signal }) => ({
      json: JSON.stringify(await options.orphans.orphans(signal)),
    })),
    RemoveOrphans: unary(adapter, 'RemoveOrphans', async ({ orphans }, { signal }) => ({
      json: JSON.stringify(await options.orphans.remove(orphans.map(orphanName), signal)),
    })),
    AttachVolume: unary(adapter, 'AttachVolume', async (request, { signal }) => {
      const { pod, volume } = podVolume(request);
      return { serial: await options.volumes.attach(pod, volume, signal) };
    }),
    DetachVolume: unary(adapter, 'DetachVolume', async (request, { signal }) => {
      const { pod, volume } = podVolume(request);
      await options.volumes.detach(pod, volume, signal);
      return {};
    }),
    RemoveTemplate: unary(adapter, 'RemoveTemplate', async ({ id }, { signal }) => {
      await options.templates?.remove(id, signal);
      return {};
    }),
  };
  await using stack = new AsyncDisposableStack();
  const server = new Server();
  stack.defer(() => server.forceShutdown());
  server.addService(loadAdmin().Admin.service, handlers);
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const listener = stack.use(
    await listenUnix({
      path: options.path,
      mode: SOCKET_MODE,
      onConnection: (socket) => injector.injectConnection(socket),
      onError: (error) => log.error('the admin socket failed', { reason: errorMessage(error) }),
    }),
  );
  stack.defer(async () => {
    listener.stop();
    await calls.drain(options.drainMs, clock);
  });
  return stack.move();
}

function orphanName({ kind, id }: OrphanName__Output): Pick<Orphan, 'kind' | 'id'> {
  const known = ORPHAN_KINDS.find((each) => each === kind);
  if (known) return { kind: known, id };
  throw new InfraletError('INVALID_ARGUMENT', `orphans: ${JSON.stringify(kind)} is no kind of orphan`);
}

function podVolume({ pod, volume }: PodVolume__Output): PodVolume__Output {
  if (pod !== '' && volume !== '') return { pod, volume };
  throw new InfraletError('INVALID_ARGUMENT', 'pod and volume: must not be empty');
}

function template({ id, state, since, shape, memoryBytes, diskBytes, clones }: TemplateInfo): Template {
  return {
    id,
    state,
    sinceMs: String(Math.round(since)),
    cpuMillis: String(shape.cpuMillis),
    memoryLimitBytes: String(shape.memoryBytes),
    memoryBytes: String(memoryBytes),
    diskBytes: String(diskBytes),
    clones: String(clones),
  };
}
