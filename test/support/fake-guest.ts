/**
 * Machines and networks that exist in memory only: the seams of the reconciler's tests and of simulations with thousands
 * of sandboxes. What a guest is asked to do is done here, in the same order and with the same complaints.
 */

import { randomBytes } from 'node:crypto';
import { EventEmitter, on } from 'node:events';
import { Duplex } from 'node:stream';
import { InfraletError } from '../../src/base/errors.ts';
import type { SandboxId } from '../../src/base/ids.ts';
import { abortable } from '../../src/base/keyed-lock.ts';
import type { Clock } from '../../src/base/time.ts';
import type { Sample, Sample__Output } from '../../src/gen/infralet/agent/v1/Sample.ts';
import type { StatusResponse__Output } from '../../src/gen/infralet/agent/v1/StatusResponse.ts';
import type {
  AgentChannel,
  ChannelDialer,
  FirstAnswer,
  FirstWords,
  GuestEvent,
  GuestPod,
  GuestPodResources,
  LogBytes,
  Sampling,
} from '../../src/guest/channel.ts';
import type { PodNetwork, PodNetworkSpec } from '../../src/network/pod-network.ts';
import type { CriMethod } from '../../src/rpc/cri.ts';
import { FakeLog } from './fake-log.ts';
import { received, someUsage } from './samples.ts';

/** containerd's id of the sandbox of every clone. */
const TEMPLATE_SANDBOX = 'c0ffee';

interface GuestContainer {
  readonly id: string;
  readonly name: string;
  readonly labels: Record<string, string>;
  /** Name of its log; empty when it has none. */
  readonly log: string;
  state: string;
  startedAt: string;
  finishedAt: string;
  exitCode: number;
}

/** What lives in one machine; outlives the daemon that talks to it. */
export class FakeGuest {
  readonly containers = new Map<string, GuestContainer>();
  readonly images = new Set<string>();
  readonly files = new Map<string, Buffer>();
  /** How often it has warmed up. */
  rehearsals = 0;
  readonly logs = new Map<string, FakeLog>();
  readonly signals: number[] = [];
  /** Its containers do not end by signals. */
  deaf = false;
  podResources: GuestPodResources | undefined;
  sandbox = '';
  sandboxState = 'SANDBOX_READY';
  enrolled = false;
  readonly image: string;
  /** Comes with the pod sandbox of a template. */
  readonly cloned: boolean;
  /** Of that sandbox. */
  hostname = 'template';

  constructor(image: string, cloned = false) {
    this.image = image;
    this.cloned = cloned;
  }

  /** As a machine that hangs: its channel stands, and no call comes back. */
  mute = false;
  /** The network to it is cut: nothing arrives, nothing answers, nothing breaks. */
  unreachable = false;
  /** Those that are open now. */
  readonly channels = new Set<FakeChannel>();
  /** Samples that were asked for, as opposed to sent. */
  asked = 0;
  /** Changes what it says of itself. */
  lie: (sample: Sample) => Sample = (sample) => sample;

  sample(): Sample__Output {
    const seconds = performance.now() / 1000;
    const running = [...this.containers.values()].filter(({ state }) => state === 'CONTAINER_RUNNING');
    return received(
      this.lie({
        monotonicUs: Math.round(seconds * 1e6),
        pod: someUsage(seconds * (running.length + 0.1)),
        containers: running.map(({ id }) => ({
          id,
          usage: someUsage(seconds),
          layer: { bytes: 12_288, inodes: 3, ageMs: 100 },
        })),
        interfaces: [{ name: 'eth0', rxBytes: 1000, rxPackets: 10, txBytes: 2000, txPackets: 20 }],
      }),
    );
  }

  call(method: CriMethod, request: Record<string, unknown>): unknown {
    const container = (): GuestContainer => {
      const found = this.containers.get(String(request['containerId']));
      if (!found) throw new InfraletError('NOT_FOUND', `no container ${String(request['containerId'])}`);
      return found;
    };
    const id = (): string => randomBytes(32).toString('hex');
    switch (method) {
      case 'Status':
        return { status: { conditions: [{ type: 'NetworkReady', status: true }] } };
      case 'ListPodSandbox':
        return { items: this.sandbox === '' ? [] : [{ id: this.sandbox, state: this.sandboxState }] };
      case 'RunPodSandbox':
        if (this.sandbox !== '') throw new InfraletError('ALREADY_EXISTS', 'the name is reserved');
        this.sandbox = id();
        return { podSandboxId: this.sandbox };
      case 'StopPodSandbox':
        this.sandboxState = 'SANDBOX_NOTREADY';
        for (const { id: each } of this.containers.values()) this.end(each, 137);
        return {};
      case 'ImageStatus':
        return { image: this.images.has((request['image'] as { image: string }).image) ? {} : null };
      case 'PullImage': {
        const { image } = request['image'] as { image: string };
        this.images.add(image);
        return { imageRef: image };
      }
      case 'CreateContainer': {
        const config = request['config'] as {
          labels: Record<string, string>;
          logPath?: string;
          metadata: { name: string; attempt?: number };
        };
        const name = `${config.metadata.name}_${config.metadata.attempt ?? 0}`;
        if ([...this.containers.values()].some((other) => other.name === name)) {
          throw new InfraletError('UNKNOWN', `failed to reserve container name ${name}`);
        }
        const made = {
          id: id(),
          name,
          labels: config.labels,
          log: (config.logPath ?? '').replace(/\/.*$/, ''),
          state: 'CONTAINER_CREATED',
          startedAt: '0',
          finishedAt: '0',
          exitCode: 0,
        };
        this.containers.set(made.id, made);
        return { containerId: made.id };
      }
      case 'StartContainer':
        Object.assign(container(), { state: 'CONTAINER_RUNNING', startedAt: '1000' });
        return {};
      case 'UpdateContainerResources':
        Object.assign(container(), { resources: { linux: request['linux'], windows: null } });
        return {};
      case 'StopContainer':
        this.end(container().id, 143);
        return {};
      case 'RemoveContainer':
        this.containers.delete(String(request['containerId']));
        return {};
      case 'ListContainers':
        return { containers: [...this.containers.values()] };
      case 'ContainerStatus':
        return { status: { ...container(), ...this.ofStatus(container()), resources: null } };
      default:
        throw new InfraletError('UNIMPLEMENTED', `the fake guest does not do ${method}`);
    }
  }

  /** What is in statuses only. */
  ofStatus({ state }: GuestContainer): object {
    const user = { linux: { uid: '11', gid: '12', supplementalGroups: ['13'] } };
    const ended =
      state === 'CONTAINER_EXITED' ? { reason: 'Error', message: 'its last words' } : { reason: '', message: '' };
    return { ...ended, user, stopSignal: 'SIGNAL_SIGTERM' };
  }

  end(id: string, exitCode: number): void {
    const found = this.containers.get(id);
    if (found && found.state !== 'CONTAINER_EXITED') {
      Object.assign(found, { state: 'CONTAINER_EXITED', finishedAt: '2000', exitCode });
      this.logs.get(found.log)?.close();
    }
  }
}

type OnCall = (method: CriMethod, request: object) => void;

class FakeChannel extends EventEmitter implements AgentChannel {
  readonly guest: FakeGuest;
  readonly #onCall: OnCall;
  readonly #clock: Clock | undefined;
  readonly #closed = new AbortController();

  constructor(guest: FakeGuest, onCall: OnCall, clock: Clock | undefined) {
    super();
    this.guest = guest;
    this.#onCall = onCall;
    this.#clock = clock;
    guest.channels.add(this);
  }

  // The guest's answers are looser than the CRI's types, as a real guest's may be.
  readonly cri: AgentChannel['cri'] = async (method, request, options) => {
    this.#closed.signal.throwIfAborted();
    this.#onCall(method, request as object);
    if (this.guest.mute || this.guest.unreachable)
      return await abortable(
        new Promise<never>(() => undefined),
        AbortSignal.any([this.#closed.signal, options.signal]),
      );
    return this.guest.call(method, request as Record<string, unknown>) as never;
  };

  async containerSpec(): Promise<string> {
    return JSON.stringify({ process: { user: { uid: 0, gid: 0 } } });
  }

  async setContainerSpec(): Promise<void> {}

  async status(): Promise<StatusResponse__Output> {
    return {
      agentVersion: '0.0.0',
      kernel: 'none',
      bootId: '',
      containerdReady: true,
      agentResidentBytes: '1',
      imageDigest: this.guest.image,
      uptimeMs: '0',
      phases: {},
      clockNanos: String(BigInt(Date.now()) * 1_000_000n),
    };
  }

  async *watch(heartbeatMs: number, signal: AbortSignal, sampling?: Sampling): AsyncGenerator<GuestEvent> {
    const ended = AbortSignal.any([signal, this.#closed.signal]);
    const tell = (): void => void this.emit('event', { kind: 'sample', sample: this.guest.sample() });
    const timer = sampling && setInterval(tell, sampling.everyMs).unref();
    void this.#beat(heartbeatMs, ended);
    try {
      for await (const [event] of on(this, 'event', { signal: ended })) yield event;
    } finally {
      clearInterval(timer);
    }
  }

  /** Where time is the test's, a guest is not heard of by its samples. */
  async #beat(everyMs: number, ended: AbortSignal): Promise<void> {
    while (this.#clock && !ended.aborted) {
      await this.#clock.sleep(everyMs, ended).catch(() => undefined);
      if (!this.guest.unreachable) this.emit('event', { kind: 'heartbeat' });
    }
  }

  async takeSample(): Promise<Sample__Output> {
    this.#closed.signal.throwIfAborted();
    this.guest.asked += 1;
    return this.guest.sample();
  }

  async openStreaming(): Promise<Duplex> {
    return Duplex.from([]);
  }

  async serveIncoming(_service: string, _onConnection: unknown, signal: AbortSignal): Promise<void> {
    const ended = AbortSignal.any([signal, this.#closed.signal]);
    await new Promise<void>((resolve) => ended.addEventListener('abort', () => resolve(), { once: true }));
  }

  async putFiles(target: { readonly path: string }): Promise<string> {
    return `/guest/${target.path}`;
  }

  async mount({ path }: { readonly path: string }): Promise<string> {
    return `/guest/${path}`;
  }

  async removeFiles(): Promise<void> {}

  async *readFile(): AsyncGenerator<never> {}

  async makeLog(name: string, bound: number, _containerId: string): Promise<void> {
    this.#closed.signal.throwIfAborted();
    const log = this.guest.logs.get(name) ?? new FakeLog();
    this.guest.logs.set(name, Object.assign(log, { bound }));
  }

  async *readLog(name: string, offset: number, signal: AbortSignal): AsyncGenerator<LogBytes> {
    const log = this.guest.logs.get(name);
    if (!log) throw new InfraletError('NOT_FOUND', `there is no log ${name}`);
    yield* log.read(offset, AbortSignal.any([signal, this.#closed.signal]));
    if (!signal.aborted) throw new InfraletError('UNAVAILABLE', 'the channel is closed');
  }

  async trimLog(name: string, offset: number): Promise<void> {
    this.#closed.signal.throwIfAborted();
    this.guest.logs.get(name)?.trim(offset);
  }

  async removeLog(name: string): Promise<void> {
    this.guest.logs.delete(name);
  }

  async configure({ clockMs, pod }: FirstWords): Promise<FirstAnswer> {
    const sandboxId = pod ? await this.configurePod(pod) : '';
    const machine = { imageDigest: this.guest.image, agentVersion: '1', kernel: '', bootId: '' };
    return { sandboxId, clockMs, handledMs: 0, uptimeMs: 0, phases: {}, ...machine };
  }

  async configurePodNic(): Promise<void> {}

  async reserveHugePages(): Promise<void> {}

  async rehearse(): Promise<void> {
    this.guest.rehearsals += 1;
  }

  async configurePod({ hostname }: GuestPod): Promise<string> {
    if (!this.guest.cloned) return '';
    this.guest.hostname = hostname;
    this.guest.sandbox = TEMPLATE_SANDBOX;
    return TEMPLATE_SANDBOX;
  }

  async renewLease(): Promise<void> {}

  async configurePodResources(resources: GuestPodResources): Promise<void> {
    this.guest.podResources = resources;
  }

  async signalContainer(containerId: string, signalNumber: number): Promise<void> {
    this.guest.signals.push(signalNumber);
    if (this.guest.deaf) return;
    this.guest.end(containerId, 128 + signalNumber);
    this.emit('event', { kind: 'resync' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.guest.channels.delete(this);
    this.#closed.abort(new InfraletError('UNAVAILABLE', 'the channel is closed'));
  }
}

/** All machines of a test, by sandbox; `reachable` says whether the provider still runs the machine. */
export class FakeGuests implements ChannelDialer {
  readonly guests = new Map<string, FakeGuest>();
  /** How often machines have warmed up. */
  get rehearsals(): number {
    return [...this.guests.values()].reduce((sum, guest) => sum + guest.rehearsals, 0);
  }

  /** Digest of the guest image that machines are made of from now on. */
  image = 'image-1';
  /** Whether machines are clones from now on. */
  cloned = false;
  /** Hears of every call to containerd in a machine. */
  onCall: OnCall = () => undefined;
  readonly #clock: Clock | undefined;

  /** @param clock by which guests send heartbeats; absent: they only send samples. */
  constructor(clock?: Clock) {
    this.#clock = clock;
  }

  /** All connections break, as they do when the daemon dies. */
  async hangUp(): Promise<void> {
    const channels = [...this.guests.values()].flatMap((guest) => [...guest.channels]);
    await Promise.all(channels.map((channel) => channel[Symbol.asyncDispose]()));
  }

  /** The machine has lost its memory: its channels break, and it knows no certificate of its own any more. */
  disconnect(sandboxId: string): void {
    const guest = this.guests.get(sandboxId);
    this.guests.delete(sandboxId);
    for (const channel of guest?.channels ?? []) void channel[Symbol.asyncDispose]();
  }

  /** From now on no call to this machine is answered, though its channel stands. */
  mute(sandboxId: string): void {
    const guest = this.guests.get(sandboxId);
    if (guest) guest.mute = true;
  }

  /** The machine says it over every channel that is open. */
  say(sandboxId: string, event: GuestEvent): void {
    for (const channel of this.guests.get(sandboxId)?.channels ?? []) channel.emit('event', event);
  }

  newToken(): string {
    return randomBytes(16).toString('hex');
  }

  userData(token: string): string {
    return JSON.stringify({ token });
  }

  async enrol(_address: unknown, identity: { readonly sandboxId: string }): Promise<AgentChannel> {
    const guest = this.guests.get(identity.sandboxId) ?? new FakeGuest(this.image, this.cloned);
    this.guests.set(identity.sandboxId, guest);
    if (guest.unreachable) throw new InfraletError('UNAVAILABLE', 'no route to the machine');
    if (guest.enrolled) throw new InfraletError('PERMISSION_DENIED', 'the token was used before');
    guest.enrolled = true;
    return this.#channel(guest);
  }

  async connect(_address: unknown, identity: { readonly sandboxId: string }): Promise<AgentChannel> {
    const guest = this.guests.get(identity.sandboxId);
    if (guest?.unreachable) throw new InfraletError('UNAVAILABLE', 'no route to the machine');
    if (!guest?.enrolled) throw new InfraletError('PERMISSION_DENIED', 'this machine never enrolled');
    return this.#channel(guest);
  }

  #channel(guest: FakeGuest): AgentChannel {
    return new FakeChannel(guest, (method, request) => this.onCall(method, request), this.#clock);
  }
}

/** CNI that keeps books: a second ADD without DEL, or a DEL of nothing, is an error of the caller. */
export class FakeNetwork implements PodNetwork {
  readonly attached = new Map<SandboxId, PodNetworkSpec>();
  dels = 0;

  async ready() {
    return { ok: true, reason: '' };
  }

  async add(spec: PodNetworkSpec) {
    // As the contract says: a repeated add first cleans up what the last try left.
    this.attached.set(spec.sandboxId, spec);
    return {
      netns: `/run/netns/${spec.sandboxId}`,
      mac: '0a:00:00:00:00:01',
      mtu: 1500,
      addresses: [
        { address: `10.0.0.${this.attached.size + 1}/24`, gateway: '10.0.0.1' },
        { address: `fd00::${this.attached.size + 1}/64`, gateway: 'fd00::1' },
      ],
      routes: [],
    };
  }

  async check(): Promise<void> {}

  async join(): Promise<undefined> {}

  async remove(spec: PodNetworkSpec): Promise<void> {
    if (this.attached.delete(spec.sandboxId)) this.dels += 1;
  }

  async list(): Promise<readonly SandboxId[]> {
    return [...this.attached.keys()];
  }
}
