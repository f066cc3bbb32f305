/**
 * The daemon's side of one machine: an enrolled, mutually authenticated gRPC channel to its agent.
 * Everything that comes back is untrusted; the channel bounds sizes, the callers check meanings.
 */
import type { Duplex } from 'node:stream';
import type { Sample__Output } from '../gen/infralet/agent/v1/Sample.ts';
import type { StatusResponse__Output } from '../gen/infralet/agent/v1/StatusResponse.ts';
import type { ContainerEventResponse__Output } from '../gen/runtime/v1/ContainerEventResponse.ts';
import type { CriMethod, CriRequest, CriResponseFull } from '../rpc/cri.ts';

/** Directories of the agent that files go to and come from; see agent.proto. */
export type GuestRoot = 'ROOT_VOLUMES' | 'ROOT_LOGS' | 'ROOT_CNI' | 'ROOT_SCRATCH' | 'ROOT_SECCOMP';

/** One file on its way into a machine. Paths are relative to the target; '' is the target itself. */
export type GuestFile = {
  readonly path: string;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeMs: number;
} & (
  | { readonly kind: 'file'; readonly size: number; readonly content: AsyncIterable<Uint8Array> }
  | { readonly kind: 'directory' }
  | { readonly kind: 'symlink'; readonly link: string }
);

/** Where a tree of files goes and what becomes of what is there; see agent.proto. */
export interface PutTarget {
  readonly root: GuestRoot;
  readonly path: string;
  readonly replace: boolean;
  /** The target's inode stays and its content becomes the tree's. */
  readonly sync?: boolean;
  /** With sync: nothing is done when the target has this `..data` link and this time already. */
  readonly current?: string;
  readonly currentMtimeMs?: number;
  /** What exists stays as it is. */
  readonly keep?: boolean;
}

/** A file system of its own on a directory in the machine. */
export type GuestMount = {
  readonly root: GuestRoot;
  /** One component. */
  readonly path: string;
} & (
  | { readonly memory: VolumeOwner & { readonly size: number } }
  | { readonly hugePages: VolumeOwner & { readonly pageSize: number } }
  /** A directory of the node; its connections come as those of the service `share/` and the path. */
  | { readonly share: { readonly export: string; readonly readonly: boolean } }
);

interface VolumeOwner {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** What programs of the machine connect to: the image service, and the directories that the node shares. */
export type IncomingService = 'images' | `share/${string}`;

export interface LogBytes {
  readonly offset: number;
  readonly data: Buffer;
  /** All that containerd wrote ends here (data is empty then), and it has closed the log. */
  readonly ended: boolean;
}

export type GuestEvent =
  | { readonly kind: 'heartbeat' }
  | { readonly kind: 'container'; readonly event: ContainerEventResponse__Output }
  /** What the pod uses, as the guest says: nothing in it is checked. */
  | { readonly kind: 'sample'; readonly sample: Sample__Output }
  /** The machine's cloud takes it back; as the guest says. */
  | { readonly kind: 'interruption'; readonly action: string; readonly noticeMs: number }
  /** Events may have been lost: read all statuses anew. */
  | { readonly kind: 'resync' };

/** How often a machine tells what its pod uses. Milliseconds. */
export interface Sampling {
  readonly everyMs: number;
  /** Least time between two walks through what the containers have written. */
  readonly layerMs: number;
}

export interface CallOptions {
  readonly signal: AbortSignal;
  /** Milliseconds until the call fails with DEADLINE_EXCEEDED, here and in the guest. */
  readonly timeoutMs: number;
}

export interface AgentChannel extends AsyncDisposable {
  /** Calls containerd's CRI in the machine. Errors carry containerd's own code and message. */
  cri<M extends CriMethod>(method: M, request: CriRequest<M>, options: CallOptions): Promise<CriResponseFull<M>>;
  /** The OCI runtime specification that containerd will start a container with: JSON, as the guest gave it. */
  containerSpec(guestId: string, options: CallOptions): Promise<string>;
  /** Replaces it. A container that runs already is not changed. */
  setContainerSpec(guestId: string, spec: string, options: CallOptions): Promise<void>;
  status(options: CallOptions): Promise<StatusResponse__Output>;
  /**
   * Heartbeats, container events and, when asked for, samples; ends with an error when the channel breaks, quietly when
   * the signal fires.
   */
  watch(heartbeatMs: number, signal: AbortSignal, sampling?: Sampling): AsyncIterable<GuestEvent>;
  /** What the pod uses now, unchecked. */
  takeSample(options: CallOptions): Promise<Sample__Output>;
  /** A byte stream to containerd's streaming server; resolves when the other end is connected. Half-close works. */
  openStreaming(signal: AbortSignal): Promise<Duplex>;
  /** Serves connections that the guest opens towards `service`, until the signal fires. */
  serveIncoming(service: IncomingService, onConnection: (socket: Duplex) => void, signal: AbortSignal): Promise<void>;
  /** Writes a tree; resolves with its absolute path inside the machine. */
  putFiles(target: PutTarget, files: AsyncIterable<GuestFile>, options: CallOptions): Promise<string>;
  /** Idempotent; resolves with the absolute path inside the machine. */
  mount(mount: GuestMount, options: CallOptions): Promise<string>;
  removeFiles(root: GuestRoot, paths: readonly string[], options: CallOptions): Promise<void>;
  /** The first `limit` bytes of a file, piece by piece. */
  readFile(root: GuestRoot, path: string, limit: number, signal: AbortSignal): AsyncIterable<Buffer>;
  /**
   * Prepares a container's log in the machine, of which `bound` bytes may wait for the node. May be repeated; with containerd's
   * id of the container as soon as there is one.
   */
  makeLog(name: string, bound: number, containerId: string, options: CallOptions): Promise<void>;
  /** A log from an offset on, in order, until the signal fires; begins later when the bytes there are gone. */
  readLog(name: string, offset: number, signal: AbortSignal): AsyncIterable<LogBytes>;
  /** The node has everything before the offset, durably. May be repeated. */
  trimLog(name: string, offset: number, options: CallOptions): Promise<void>;
  removeLog(name: string, options: CallOptions): Promise<void>;
  /** The first words: sets clock, randomness and host name, and does what `configurePod` does in the same call. */
  configure(settings: FirstWords, options: CallOptions): Promise<FirstAnswer>;
  /** Gives the pod's NIC the pod's address and MTU, and the pod its bounds; idempotent. */
  configurePodNic(nic: GuestNic, limits: GuestPodResources, options: CallOptions): Promise<void>;
  /** Has the machine set memory aside for at least so many huge pages. */
  reserveHugePages(
    pages: readonly { readonly pageBytes: number; readonly count: number }[],
    options: CallOptions,
  ): Promise<void>;
  /** Makes the sandbox of a template into this pod's; resolves with its id, or '' when the machine has none. Idempotent. */
  configurePod(pod: GuestPod, options: CallOptions): Promise<string>;
  /** Has the machine warm up before it has a pod, on demand with a container of nobody's; all of it is gone when it resolves. */
  rehearse(container: boolean, options: CallOptions): Promise<void>;
  /** The machine lives on for this long, milliseconds, whatever becomes of the node; 0: for ever. */
  renewLease(durationMs: number, options: CallOptions): Promise<void>;
  /** What all containers of the pod may use together. */
  configurePodResources(resources: GuestPodResources, options: CallOptions): Promise<void>;
  /** Sends a signal (its number) to the first process of a container (containerd's id). NOT_FOUND when it does not run. */
  signalContainer(containerId: string, signalNumber: number, options: CallOptions): Promise<void>;
}

export interface FirstWords {
  readonly clockMs: number;
  readonly entropy: Uint8Array;
  readonly hostname: string;
  /** Where it is known already. */
  readonly pod?: GuestPod | undefined;
}

/** As the guest says; only the id is checked. */
export interface FirstAnswer {
  /** As that of `configurePod`; '' without a pod. */
  readonly sandboxId: string;
  /** When it answered, by its own clock. */
  readonly clockMs: number;
  /** How long it was at it, of the time that the call took. */
  readonly handledMs: number;
  readonly uptimeMs: number;
  /** Milliseconds since the kernel started. */
  readonly phases: Readonly<Record<string, number>>;
  readonly imageDigest: string;
  readonly agentVersion: string;
  readonly kernel: string;
  readonly bootId: string;
}

/** What the sandbox of a template is given to become a pod's. Addresses and destinations with prefix length. */
export interface GuestPod {
  readonly hostname: string;
  readonly resolvConf: string;
  readonly mac: string;
  readonly mtu: number;
  readonly addresses: readonly { readonly address: string }[];
  readonly routes: readonly { readonly destination: string; readonly gateway: string }[];
  readonly limits: GuestPodResources;
}

/**
 * The pod's NIC: one that the machine has, found by its hardware address; the end of a tunnel that it makes; or a link to the
 * machine's own network, into which it routes packets for the pod's address.
 */
export type GuestNic = { readonly mac: string; readonly mtu: number } & (
  | { readonly foundBy: string }
  | {
      readonly vxlan: {
        readonly vni: number;
        /** The machine's own address, and the node's. */
        readonly local: string;
        readonly remote: string;
        readonly port: number;
      };
    }
  | {
      /** The machine's own address, and the pod's. */
      readonly routed: { readonly local: string; readonly pod: string };
    }
);

/** Bounds of a pod as a whole inside its machine. 0: left as it is; -1: no limit but the machine. Bytes, microseconds, 1024 shares for one CPU. */
export interface GuestPodResources {
  readonly memoryBytes: number;
  readonly cpuQuota: number;
  readonly cpuPeriod: number;
  readonly cpuShares: number;
}

/** Who a machine is, for its certificate. */
export interface MachineIdentity {
  readonly sandboxId: string;
  readonly instanceId: string;
}

/** Opens channels. Made once per daemon with its PKI. */
export interface ChannelDialer {
  /** A fresh enrolment token (32 random bytes, base64url) for user data. */
  newToken(): string;
  /** The user data of a machine: JSON of at most 4 KiB with token, CA certificate and identity; nothing else secret. */
  userData(token: string, identity: { readonly sandboxId: string }): string;
  /**
   * Connects for the first time: proves both sides, signs the agent's certificate, returns the enrolled channel.
   * Fails with UNAVAILABLE while the agent does not listen yet, with PERMISSION_DENIED when the peer is not ours.
   */
  enrol(
    address: { readonly host: string; readonly port: number },
    identity: MachineIdentity,
    token: string,
    options: CallOptions,
  ): Promise<AgentChannel>;
  /** Connects to a machine that has enrolled before. Renewal is the channel's own business from then on. */
  connect(
    address: { readonly host: string; readonly port: number },
    identity: MachineIdentity,
    options: CallOptions,
  ): Promise<AgentChannel>;
}
