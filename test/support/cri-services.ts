/** Sandboxes, containers and images in memory: the CRI layer's seams, with the behaviour its interfaces promise. */
import { createHash } from 'node:crypto';
import { InfraletError } from '../../src/base/errors.ts';
import { type ContainerId, newContainerId, newSandboxId, parseDigest, type SandboxId } from '../../src/base/ids.ts';
import { abortable } from '../../src/base/keyed-lock.ts';
import { nanos } from '../../src/base/time.ts';
import type { ContainerState, ContainerView, GuestStream, StreamRequest } from '../../src/container/service.ts';
import type { CriContainers, CriImages, CriSandboxes } from '../../src/cri/deps.ts';
import type { EventService } from '../../src/events/feed.ts';
import type { ExecSyncResponse__Output } from '../../src/gen/runtime/v1/ExecSyncResponse.ts';
import type { ImageRecord, RegistryAuth } from '../../src/image/service.ts';
import type { SandboxView } from '../../src/sandbox/service.ts';
import type { StatsService } from '../../src/stats/service.ts';

const absent = (what: string, id: string) => new InfraletError('NOT_FOUND', `no ${what} has the id ${id}`);

/** By id, or by a prefix that only one has. */
function find<View extends { readonly id: string }>(views: readonly View[], what: string, id: string): View {
  const exact = views.find((view) => view.id === id);
  if (exact) return exact;
  const [one, ...more] = views.filter((view) => view.id.startsWith(id));
  if (!one) throw absent(what, id);
  if (more.length > 0) throw new InfraletError('INVALID_ARGUMENT', `several ${what}s begin with ${id}`);
  return one;
}

export interface MemoryServices {
  readonly sandboxes: CriSandboxes;
  readonly containers: CriContainers;
  readonly images: CriImages;
  readonly stats: StatsService;
  readonly events: EventService;
  /** Every call that changed something, in order: "run default/web", "stop <id>". */
  readonly journal: string[];
  /** Credentials that pulls came with. */
  readonly credentials: (RegistryAuth | undefined)[];
  /** Runs in place of work that takes time: RunPodSandbox, StartContainer, PullImage. Throws to make them fail. */
  work: (what: string, signal: AbortSignal) => Promise<void>;
  /** What ExecSync answers. */
  exec: (cmd: readonly string[], timeoutSeconds: number, signal: AbortSignal) => Promise<ExecSyncResponse__Output>;
  /** What a streaming session connects to. */
  open: (request: StreamRequest, signal: AbortSignal) => Promise<GuestStream>;
}

const noFigures = async (): Promise<never> => {
  throw new InfraletError('UNAVAILABLE', 'no machine here');
};

export function memoryServices(): MemoryServices {
  const sandboxes = new Map<SandboxId, SandboxView>();
  const containers = new Map<ContainerId, ContainerView>();
  const images = new Map<string, ImageRecord>();
  const journal: string[] = [];
  const credentials: (RegistryAuth | undefined)[] = [];
  const setState = (id: string, state: ContainerState): void => {
    const view = find([...containers.values()], 'container', id);
    containers.set(view.id, { ...view, state });
  };
  const imageOf = (reference: string): ImageRecord | undefined =>
    [...images.values()].find((image) => image.id === reference || image.repoTags.includes(reference));

  const services: MemoryServices = {
    journal,
    credentials,
    work: async (_what, signal) => signal.throwIfAborted(),
    exec: async (cmd) => ({ stdout: Buffer.from(cmd.join(' ')), stderr: Buffer.alloc(0), exitCode: 0 }),
    open: async () => {
      throw new InfraletError('UNAVAILABLE', 'no machine here');
    },
    sandboxes: {
      run: async (config, runtimeHandler, signal) => {
        await abortable(services.work('run', signal), signal);
        const id = newSandboxId();
        journal.push(`run ${config.metadata?.namespace}/${config.metadata?.name}`);
        const createdAt = Date.now();
        sandboxes.set(id, {
          id,
          config,
          runtimeHandler,
          ready: true,
          createdAt,
          ips: ['10.88.0.7', 'fd00::7'],
          info: () => ({ state: 'ready', machine: 'vm-1' }),
        });
        return id;
      },
      stop: async (id) => {
        journal.push(`stop ${id}`);
        const view = sandboxes.get(id as SandboxId);
        if (view) sandboxes.set(view.id, { ...view, ready: false });
      },
      updateResources: async (id, resources) => {
        journal.push(`update ${id} ${resources?.memoryLimitInBytes ?? ''}`);
      },
      remove: async (id) => {
        journal.push(`remove ${id}`);
        sandboxes.delete(id as SandboxId);
      },
      get: (id) => find([...sandboxes.values()], 'sandbox', id),
      list: () => [...sandboxes.values()],
    },
    containers: {
      create: async (sandboxId, config, _sandboxConfig, signal) => {
        await abortable(services.work('create', signal), signal);
        const id = newContainerId();
        const createdAt = Date.now();
        journal.push(`create ${config.metadata?.name}`);
        containers.set(id, {
          id,
          sandboxId: sandboxId as SandboxId,
          config,
          state: 'CONTAINER_CREATED',
          imageId: 'sha256:abc',
          imageRef: 'registry/busybox@sha256:abc',
          createdAt,
          status: () => ({
            id,
            metadata: config.metadata,
            state: containers.get(id)?.state ?? 'CONTAINER_UNKNOWN',
            createdAt: nanos(createdAt),
            startedAt: '0',
            finishedAt: '0',
            exitCode: 0,
            image: config.image,
            imageRef: 'registry/busybox@sha256:abc',
            imageId: 'sha256:abc',
            reason: '',
            message: '',
            labels: config.labels,
            annotations: config.annotations,
            mounts: config.mounts,
            logPath: config.logPath,
            resources: null,
            user: null,
            stopSignal: 'SIGNAL_SIGTERM',
          }),
          info: () => ({ pid: 17 }),
        });
        return id;
      },
      start: async (id, signal) => {
        await abortable(services.work('start', signal), signal);
        setState(id, 'CONTAINER_RUNNING');
        journal.push(`start ${id}`);
      },
      stop: async (id, timeoutSeconds) => {
        journal.push(`stop ${id} ${timeoutSeconds}`);
        if (containers.has(id as ContainerId)) setState(id, 'CONTAINER_EXITED');
      },
      updateResources: async (id, update) => {
        journal.push(`update ${id} ${update.memoryLimitInBytes}`);
      },
      reopenLog: async (id) => {
        journal.push(`reopen ${id}`);
      },
      remove: async (id) => {
        journal.push(`remove ${id}`);
        containers.delete(id as ContainerId);
      },
      get: (id) => find([...containers.values()], 'container', id),
      list: () => [...containers.values()],
      execSync: async (_id, cmd, timeoutSeconds, signal) => services.exec(cmd, timeoutSeconds, signal),
      checkStream: (request) => {
        if (request.kind === 'portforward') return;
        if (containers.get(request.containerId)?.state !== 'CONTAINER_RUNNING') {
          throw new InfraletError('FAILED_PRECONDITION', `the container ${request.containerId} is not running`);
        }
      },
      openStream: async (request, signal) => services.open(request, signal),
    },
    // Figures and events are tested over the real keeper and feed, in a world of fake machines.
    stats: { container: () => undefined, pod: () => undefined, freshContainer: noFigures, freshPod: noFigures },
    events: {
      subscribe: () => ({ next: noFigures, [Symbol.dispose]: () => undefined }),
      stamp: () => nanos(Date.now()),
    },
    images: {
      pull: async (reference, auth, signal) => {
        credentials.push(auth);
        await abortable(services.work('pull', signal), signal);
        journal.push(`pull ${reference}`);
        const digest = parseDigest(`sha256:${createHash('sha256').update(reference).digest('hex')}`);
        const record: ImageRecord = {
          id: digest,
          manifest: digest,
          repoTags: [reference],
          repoDigests: [`${reference.split(':')[0]}@${digest}`],
          size: 4_300_000_000,
          ...(reference.includes('user') ? { uid: undefined, username: 'app' } : { uid: 1000, username: '' }),
          pinned: reference.includes('pause'),
          annotations: { 'org.opencontainers.image.title': 'app' },
        };
        images.set(digest, record);
        return record;
      },
      find: imageOf,
      list: () => [...images.values()],
      remove: async (reference) => {
        journal.push(`rmi ${reference}`);
        const image = imageOf(reference);
        if (image) images.delete(image.id);
      },
      configuration: async () => ({ architecture: 'amd64', os: 'linux' }),
      usage: async () => ({ mountpoint: '/var/lib/infralet/images', usedBytes: 5_000_000_000, inodesUsed: 42 }),
    },
  };
  return services;
}
