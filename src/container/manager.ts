/** The ContainerService: containers live in their sandbox's machine; what is known of them lives in the store. */
import { InfraletError } from '../base/errors.ts';
import { type ContainerId, newContainerId, type SandboxId } from '../base/ids.ts';
import { type Clock, nanos } from '../base/time.ts';
import type { ContainerConfig__Output } from '../gen/runtime/v1/ContainerConfig.ts';
import type { ContainerStatus__Output } from '../gen/runtime/v1/ContainerStatus.ts';
import type { ExecSyncResponse__Output } from '../gen/runtime/v1/ExecSyncResponse.ts';
import type { LinuxContainerResources__Output } from '../gen/runtime/v1/LinuxContainerResources.ts';
import { guestId } from '../guest/conduct.ts';
import { normalisedName } from '../image/reference.ts';
import type { ImageRecord, ImageService } from '../image/service.ts';
import { guestSandboxConfig, type NodeFacts } from '../sandbox/guest-config.ts';
import { isReady, type SandboxRecord } from '../sandbox/record.ts';
import type { Sessions } from '../sandbox/session.ts';
import type { SandboxEntry, SandboxStore } from '../sandbox/store.ts';
import type { MountCarrier } from '../volume/mounts.ts';
import { carrySeccomp } from '../volume/seccomp.ts';
import { completeInGuest } from './complete.ts';
import { pastDyingShim } from './dying-shim.ts';
import { guestContainerConfig, guestLogName } from './guest-config.ts';
import { hugePagesOf } from './huge-pages.ts';
import type { GuestImages } from './images.ts';
import type { ContainerLogs } from './logs.ts';
import type { ContainerObserver } from './observer.ts';
import type { ContainerRecord } from './record.ts';
import { namingField } from './refusals.ts';
import { forGuest, refuseAboveMachine, withUpdate } from './resources.ts';
import type { ContainerService, ContainerView, GuestStream, StreamRequest } from './service.ts';
import { criStatus } from './status.ts';
import { stopInGuest } from './stop.ts';
import type { ContainerEntry, ContainerStore } from './store.ts';
import { openGuestStream } from './streams.ts';

/** A relayed call that should be quick; emulated machines are ten times slower than real ones. */
const CALL_MS = 120_000;
/** For calls whose length the client decides; the client's own deadline ends them. */
const UNLIMITED_MS = 24 * 3_600_000;
/** Added to a stop's grace and an exec's time limit before the relay itself gives up. */
const RELAY_SLACK_MS = 30_000;

export interface ContainerManagerDeps {
  readonly store: ContainerStore;
  readonly sandboxes: SandboxStore;
  readonly sessions: Sessions;
  readonly images: ImageService;
  readonly guestImages: GuestImages;
  readonly mounts: MountCarrier;
  readonly observer: ContainerObserver;
  readonly logs: ContainerLogs;
  readonly node: NodeFacts;
  readonly clock: Clock;
}

export class ContainerManager implements ContainerService {
  readonly #deps: ContainerManagerDeps;
  readonly #store: ContainerStore;
  readonly #observer: ContainerObserver;
  /** Lists are asked for every second and rarely change: made anew only then, and only what has changed. */
  #list: { readonly version: number; readonly views: readonly ContainerView[] } | undefined;
  readonly #views = new WeakMap<ContainerRecord, ContainerView>();

  constructor(deps: ContainerManagerDeps) {
    this.#deps = deps;
    this.#store = deps.store;
    this.#observer = deps.observer;
  }

  async create(
    sandboxId: string,
    config: ContainerConfig__Output,
    _sandboxConfig: unknown,
    signal: AbortSignal,
  ): Promise<ContainerId> {
    const sandbox = this.#sandbox(sandboxId);
    const { record } = sandbox;
    if (!isReady(record)) {
      const why = record.interruption ?? record.state;
      throw new InfraletError('FAILED_PRECONDITION', `pod sandbox ${record.id} is not ready (${why})`);
    }
    // Waits, so it comes before the name is looked up.
    const channel = await this.#deps.sessions.opened(record.id, signal);
    this.#refuseSameName(record, config);
    const image = this.#image(config);
    const id = newContainerId();
    using _creating = this.#observer.creating(id);
    try {
      this.#store.add(newRecord(id, record.id, image, nanos(this.#deps.clock.now())), config);
      this.#deps.sandboxes.mark(record.id, 'container asked', this.#deps.clock.now());
      await Promise.all([
        this.#deps.guestImages.ensure(record.id, image, channel, signal),
        config.logPath === '' ? undefined : this.#deps.logs.prepare(id, '', channel, { signal, timeoutMs: CALL_MS }),
      ]);
      this.#deps.sandboxes.mark(record.id, 'image', this.#deps.clock.now());
      const mounts = await this.#deps.mounts.carry(record.id, config.mounts, channel, signal);
      const hugePages = hugePagesOf([...this.#store.ofSandbox(record.id).map((entry) => entry.config)]);
      if (hugePages.length > 0) await channel.reserveHugePages(hugePages, { signal, timeoutMs: CALL_MS });
      const target = config.linux?.securityContext?.namespaceOptions?.targetId ?? '';
      const made = await channel.cri(
        'CreateContainer',
        {
          podSandboxId: record.guestSandboxId,
          config: guestContainerConfig(config, {
            id,
            image: image.id,
            mounts,
            hugePages,
            seccomp: await carrySeccomp(config.linux?.securityContext ?? null, channel, signal),
            targetId: target === '' ? '' : this.#entry(target).record.guestId,
          }),
          sandboxConfig: guestSandboxConfig(sandbox.config, this.#deps.node),
        },
        { signal, timeoutMs: CALL_MS },
      );
      const containerId = guestId(made.containerId);
      const [user] = await Promise.all([
        completeInGuest(containerId, config, channel, { signal, timeoutMs: CALL_MS }),
        config.logPath === ''
          ? undefined
          : this.#deps.logs.prepare(id, containerId, channel, { signal, timeoutMs: CALL_MS }),
      ]);
      this.#store.update(id, { guestId: containerId, user });
      return id;
    } catch (error) {
      // Nothing of a failed try is kept; what the guest may have made of it would hold the name against the next one.
      this.#store.remove(id);
      this.#observer.onEvent(record.id, { kind: 'resync' });
      await channel.removeLog(guestLogName(id), { signal, timeoutMs: CALL_MS }).catch(() => undefined);
      throw namingField(error, config);
    }
  }

  /** As containerd does: one container per name and attempt in a pod. */
  #refuseSameName(sandbox: SandboxRecord, config: ContainerConfig__Output): void {
    const { metadata } = config;
    const twin = this.#store
      .ofSandbox(sandbox.id)
      .find(
        (other) =>
          other.config.metadata?.name === metadata?.name && other.config.metadata?.attempt === metadata?.attempt,
      );
    if (!twin) return;
    throw new InfraletError(
      'ALREADY_EXISTS',
      `container ${metadata?.name}, attempt ${metadata?.attempt}, exists in this pod as ${twin.record.id}`,
      { hint: `remove it first: crictl rm ${twin.record.id}` },
    );
  }

  #image(config: ContainerConfig__Output): ImageRecord {
    const name = config.image?.image ?? '';
    const image = this.#deps.images.find(name);
    if (image) return image;
    throw new InfraletError('NOT_FOUND', `image ${name} is not on this node`, {
      hint: `pull it first: crictl pull ${name}`,
    });
  }

  async start(id: string, signal: AbortSignal): Promise<void> {
    const { record } = this.#entry(id);
    if (record.state !== 'CONTAINER_CREATED') {
      throw new InfraletError('FAILED_PRECONDITION', `container ${record.id} cannot start: it is ${record.state}`);
    }
    const channel = await this.#deps.sessions.opened(record.sandboxId, signal);
    const options = { signal, timeoutMs: CALL_MS };
    await this.#deps.logs.begin(record.id);
    try {
      await channel.cri('StartContainer', { containerId: record.guestId }, options);
    } catch (error) {
      // containerd has a status with the reason now; failing to read it must not hide why the start failed.
      await this.#observer.refresh(record.id, channel, signal).catch(() => undefined);
      throw error;
    }
    await this.#observer.refresh(record.id, channel, signal);
    this.#deps.sandboxes.mark(record.sandboxId, 'container started', this.#deps.clock.now());
    this.#deps.logs.follow(record.id);
  }

  async stop(id: string, timeoutSeconds: number, signal: AbortSignal): Promise<void> {
    const entry = this.#find(id);
    if (!entry || entry.record.state === 'CONTAINER_EXITED' || entry.record.guestId === '') return;
    const { record } = entry;
    const channel = await this.#deps.sessions.opened(record.sandboxId, signal);
    await stopInGuest(this.#deps, entry, timeoutSeconds * 1000, channel, signal);
  }

  async updateResources(id: string, update: LinuxContainerResources__Output, signal: AbortSignal): Promise<void> {
    const { record, config } = this.#entry(id);
    if (record.state !== 'CONTAINER_RUNNING' && record.state !== 'CONTAINER_CREATED') {
      throw new InfraletError('FAILED_PRECONDITION', `container ${record.id} has ended (${record.state})`);
    }
    const { shape } = this.#sandbox(record.sandboxId).record;
    refuseAboveMachine(`container ${config.metadata?.name ?? record.id}`, update, shape);
    const channel = await this.#deps.sessions.opened(record.sandboxId, signal);
    const request = { containerId: record.guestId, linux: forGuest(update) };
    await channel.cri('UpdateContainerResources', request, { signal, timeoutMs: CALL_MS });
    const before = this.#entry(record.id).record.resources ?? config.linux?.resources ?? null;
    this.#store.update(record.id, { resources: withUpdate(before, update) });
    await this.#observer.refresh(record.id, channel, signal);
  }

  async reopenLog(id: string, signal: AbortSignal): Promise<void> {
    const entry = this.#running(id);
    signal.throwIfAborted();
    await this.#deps.logs.reopen(entry);
  }

  async remove(id: string, signal: AbortSignal): Promise<void> {
    const entry = this.#find(id);
    if (!entry) return;
    const { record } = entry;
    try {
      await this.stop(record.id, 0, signal);
      this.#store.update(record.id, { removing: true });
      await this.#removeFromGuest(this.#entry(record.id), signal);
    } catch (error) {
      if (signal.aborted || !this.#ending(record.sandboxId)) throw error;
    }
    await this.#observer.forgetContainer(record.id);
    this.#store.remove(record.id);
  }

  /** A pod that is being stopped takes its machine along, and with it all containers, whether the guest still answers or not. */
  #ending(id: SandboxId): boolean {
    const sandbox = this.#deps.sandboxes.get(id)?.record;
    return sandbox?.wanted !== 'ready' || sandbox.machine !== 'launched';
  }

  async #removeFromGuest({ record }: ContainerEntry, signal: AbortSignal): Promise<void> {
    const sandbox = this.#deps.sandboxes.get(record.sandboxId)?.record;
    if (sandbox?.machine !== 'launched') return;
    await this.#deps.logs.forget(record.id);
    const channel = await this.#deps.sessions.opened(record.sandboxId, signal);
    const options = { signal, timeoutMs: CALL_MS };
    if (record.guestId !== '') {
      const request = { containerId: record.guestId };
      await pastDyingShim(() => channel.cri('RemoveContainer', request, options), this.#deps.clock, signal);
    }
    await channel.removeLog(guestLogName(record.id), options);
  }

  get(id: string): ContainerView {
    return this.#view(this.#entry(id));
  }

  list(): readonly ContainerView[] {
    const { version } = this.#store;
    if (this.#list?.version !== version) {
      const listed = this.#store.all().filter(({ record }) => record.guestId !== '' && !record.removing);
      this.#list = { version, views: listed.map((entry) => this.#view(entry)) };
    }
    return this.#list.views;
  }

  /** Of all containers of a sandbox, from memory. */
  statuses(id: SandboxId): readonly ContainerStatus__Output[] {
    const listed = this.#store.ofSandbox(id).filter(({ record }) => record.guestId !== '' && !record.removing);
    return listed.map((entry) => this.#view(entry).status());
  }

  async execSync(
    id: string,
    cmd: readonly string[],
    timeoutSeconds: number,
    signal: AbortSignal,
  ): Promise<ExecSyncResponse__Output> {
    const { record } = this.#running(id);
    const channel = await this.#deps.sessions.opened(record.sandboxId, signal);
    return await channel.cri(
      'ExecSync',
      { containerId: record.guestId, cmd: [...cmd], timeout: String(timeoutSeconds) },
      { signal, timeoutMs: timeoutSeconds > 0 ? timeoutSeconds * 1000 + RELAY_SLACK_MS : UNLIMITED_MS },
    );
  }

  checkStream(request: StreamRequest): void {
    if (request.kind === 'portforward') {
      const { record } = this.#sandbox(request.sandboxId);
      if (record.state !== 'ready') {
        throw new InfraletError('FAILED_PRECONDITION', `pod sandbox ${record.id} is not ready (${record.state})`);
      }
    } else {
      this.#running(request.containerId);
    }
  }

  async openStream(request: StreamRequest, signal: AbortSignal): Promise<GuestStream> {
    if (request.kind === 'portforward') {
      const { record } = this.#sandbox(request.sandboxId);
      const channel = await this.#deps.sessions.opened(record.id, signal);
      return await openGuestStream(request, record.guestSandboxId, channel, signal);
    }
    const { record } = this.#running(request.containerId);
    const channel = await this.#deps.sessions.opened(record.sandboxId, signal);
    return await openGuestStream(request, record.guestId, channel, signal);
  }

  #view({ record, config }: ContainerEntry): ContainerView {
    const known = this.#views.get(record);
    if (known) return known;
    const entry: ContainerEntry = { record, config };
    const view: ContainerView = {
      id: record.id,
      sandboxId: record.sandboxId,
      config,
      state: record.state,
      imageId: record.imageId,
      imageRef: record.imageRef,
      createdAt: Number(BigInt(record.createdAt) / 1_000_000n),
      status: () =>
        criStatus(
          record,
          config,
          this.#imageName(entry),
          this.#deps.logs.path(entry),
          this.#observer.guestFacts(record.id),
        ),
      info: () => ({ sandboxId: record.sandboxId, guestId: record.guestId, logDone: record.logDone }),
    };
    this.#views.set(record, view);
    return view;
  }

  /** The name that was asked for, in full, while the image still has it; else one of the image's own. */
  #imageName({ record, config }: ContainerEntry): string {
    const { image = '', userSpecifiedImage = '' } = config.image ?? {};
    const tags = this.#deps.images.find(record.imageId)?.repoTags ?? [];
    const asked = [image, userSpecifiedImage].map(normalisedName).find((name) => name && tags.includes(name));
    return asked ?? tags[0] ?? (userSpecifiedImage || image);
  }

  #find(id: string): ContainerEntry | undefined {
    const exact = this.#store.find(id);
    if (exact || id === '') return exact;
    const matches = this.#store.all().filter(({ record }) => record.id.startsWith(id));
    if (matches.length > 1) throw new InfraletError('INVALID_ARGUMENT', `more than one container id begins with ${id}`);
    return matches[0];
  }

  #entry(id: string): ContainerEntry {
    const entry = this.#find(id);
    if (entry && entry.record.guestId !== '') return entry;
    throw new InfraletError('NOT_FOUND', `there is no container ${id}`);
  }

  #running(id: string): ContainerEntry {
    const entry = this.#entry(id);
    if (entry.record.state === 'CONTAINER_RUNNING') return entry;
    throw new InfraletError('FAILED_PRECONDITION', `container ${id} is not running (${entry.record.state})`);
  }

  #sandbox(id: string): SandboxEntry {
    const entry = this.#deps.sandboxes.find(id) ?? this.#sandboxByPrefix(id);
    if (entry?.record.listed) return entry;
    throw new InfraletError('NOT_FOUND', `there is no pod sandbox ${id}`);
  }

  #sandboxByPrefix(id: string): SandboxEntry | undefined {
    const matches = id === '' ? [] : this.#deps.sandboxes.all().filter(({ record }) => record.id.startsWith(id));
    return matches.length === 1 ? matches[0] : undefined;
  }
}

function newRecord(id: ContainerId, sandboxId: SandboxId, image: ImageRecord, createdAt: string): ContainerRecord {
  return {
    id,
    sandboxId,
    guestId: '',
    imageId: image.id,
    imageRef: image.repoDigests[0] ?? image.id,
    state: 'CONTAINER_CREATED',
    user: null,
    createdAt,
    startedAt: '0',
    finishedAt: '0',
    exitCode: 0,
    reason: '',
    message: '',
    logDone: false,
    removing: false,
  };
}
