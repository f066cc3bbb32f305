/**
 * The provider contract: all that Infralet asks of a cloud, a hypervisor or anything else that makes machines.
 *
 * A provider is one object, made by the `create` function of a `ProviderModule` (providers/<name>/index.ts). It holds no
 * truth of its own: what exists is what `describe` finds. Every function takes an AbortSignal, and every function is
 * safe to repeat: after a crash the reconciler calls it again with the same arguments.
 */
import type { InstanceId } from '../base/ids.ts';
import type { Clock } from '../base/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Placement } from './offers.ts';

export { bytes, duration, parseOver, parseSection } from './settings.ts';

/** What a machine is asked to offer; the provider picks the nearest shape that has at least this much. */
export interface MachineShape {
  /** Thousandths of a CPU. */
  readonly cpuMillis: number;
  /** Memory in bytes as the guest sees it, guest overhead included. */
  readonly memoryBytes: number;
  /** Writable scratch disk in bytes. */
  readonly diskBytes: number;
}

export interface LaunchRequest {
  /** Idempotency token, at most 64 ASCII characters: two launches with one token make one machine. */
  readonly token: string;
  /** Put on the machine in the create call itself. Keys: TAGS. */
  readonly tags: Readonly<Record<string, string>>;
  readonly shape: MachineShape;
  /** JSON for the agent (see guest/user-data.ts), at most 4 KiB. Readable inside the machine only. */
  readonly userData: string;
  /**
   * `clone`: from a template that `clone.prepare` has made; fails with a fault of the kind `no-template` when there is
   * none that fits, and makes nothing. @default boot
   */
  readonly start?: StartKind;
  /** What the pod demands beside its size; for providers that choose among kinds of machines. */
  readonly placement?: Placement;
  /** Told, in one sentence, of what was tried in vain on the way to the machine: an offer, a clone, a call. */
  readonly note?: (text: string) => void;
}

export type StartKind = 'clone' | 'boot';

/** Tag keys every provider carries. */
export const TAGS = {
  cluster: 'infralet.dev/cluster',
  node: 'infralet.dev/node',
  sandbox: 'infralet.dev/sandbox',
  podUid: 'infralet.dev/pod-uid',
  attempt: 'infralet.dev/attempt',
  token: 'infralet.dev/token',
  /** Of a machine that was made before its pod was known: the pool it waited in. Its pod's tags are empty. */
  pool: 'infralet.dev/pool',
} as const;

/** Tags by which a node finds all of its machines. */
export function ownerTags(cluster: string, node: string): Readonly<Record<string, string>> {
  return { [TAGS.cluster]: cluster, [TAGS.node]: node };
}

/** `suspended`: only where there is `Provider.power`, and goes on when resumed. `stopped`: it has ended. */
export const INSTANCE_STATES = ['pending', 'running', 'suspended', 'stopping', 'stopped', 'terminated'] as const;
export type InstanceState = (typeof INSTANCE_STATES)[number];

/** Where the machine's pod NIC can be reached from the node. */
export type PodLink =
  /** A tap device in the node's network namespace, to be moved into the pod's. */
  | { readonly kind: 'tap'; readonly device: string }
  /** The machine's address in a network that the node is in, too: a VXLAN between the two carries the pod's packets. */
  | { readonly kind: 'vxlan'; readonly address: string }
  /** The cloud itself brings packets for `podAddress` (IPv4) to the machine, whose own address is `address`: no CNI on the node. */
  | { readonly kind: 'direct'; readonly address: string; readonly podAddress: string };

export interface Instance {
  readonly id: InstanceId;
  readonly token: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly state: InstanceState;
  /** Why it is stopped or terminated, in the provider's words; empty while it runs. */
  readonly reason: string;
  /** Milliseconds since the epoch. */
  readonly launchedAt: number;
  readonly shape: MachineShape;
  /** TCP address of the agent, once known. */
  readonly agent: { readonly host: string; readonly port: number } | undefined;
  readonly podLink: PodLink | undefined;
  readonly start: StartKind;
  /**
   * The machine's enrolment token where it is not the one in `LaunchRequest.userData`: machines of one shared launch call
   * have tokens that follow from their ids. Only in the answer to `launch`.
   */
  readonly enrolToken?: string;
  /** What was bought: type, zone, market and US dollars per hour; only where machines are bought. */
  readonly purchase?: {
    readonly type: string;
    readonly zone: string;
    readonly market: string;
    readonly pricePerHour: number;
  };
}

export type LaunchResult =
  | { readonly token: string; readonly ok: true; readonly instance: Instance }
  | { readonly token: string; readonly ok: false; readonly error: unknown };

export type DescribeQuery =
  | { readonly by: 'ids'; readonly ids: readonly InstanceId[] }
  /** All machines whose tags contain these, in every state but terminated. */
  | { readonly by: 'tags'; readonly tags: Readonly<Record<string, string>> };

/** What went wrong, in the terms in which the reconciler decides what to do next. */
export const FAULT_KINDS = [
  /** Asked too often: wait, then the same call again. */
  'throttled',
  /** None of this shape to be had now: try another. */
  'no-capacity',
  /** The account's own limit is reached. */
  'quota',
  /** This provider cannot do it, now or later. */
  'unsupported',
  /** The request itself is wrong. */
  'invalid',
  /** Eventual consistency: created, but not seen yet. */
  'not-found-yet',
  /** Credentials are missing, wrong or expired. */
  'auth',
  /** There is nothing to clone from, or it cannot be used: boot, and prepare a template for the next one. */
  'no-template',
  /** Unknown outcome or passing failure: the same token again. */
  'transient',
  /** The machine is gone or cannot be made; do not try again. */
  'terminal',
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

export interface Fault {
  readonly kind: FaultKind;
  /** One sentence for the pod's event. */
  readonly message: string;
  /** Earliest useful next try, in milliseconds from now. */
  readonly retryAfterMs?: number;
}

/** One finding of `doctor`. */
export interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
  /** The command or setting that mends it. */
  readonly fix?: string;
  /** False: other machines can be made all the same. @default true */
  readonly blocks?: boolean;
}

/** What one machine uses on this node; only providers whose machines run here can tell. */
export interface MachineUsage {
  /** Proportional set size of the machine's process, bytes. */
  readonly memoryBytes: number;
  /** Disk space taken by the machine's files, bytes. */
  readonly diskBytes: number;
}

/** A machine that was booted once, without a tenant or an identity, and frozen to be cloned. */
export interface TemplateInfo {
  readonly id: string;
  /** The largest machine that is cloned from it. */
  readonly shape: MachineShape;
  readonly state: 'building' | 'ready';
  /** Milliseconds since the epoch: when it was frozen, or when building it began. */
  readonly since: number;
  /** Memory that all its clones share, bytes. */
  readonly memoryBytes: number;
  /** Disk space that it takes, memory included, bytes. */
  readonly diskBytes: number;
  /** Machines that run from it now. */
  readonly clones: number;
}

/** Machines as copies of one that is up: a matter of milliseconds where a boot takes seconds. */
export interface Cloning {
  /** Makes the template for machines of this shape, unless it is there; may take as long as a boot. Safe to repeat. */
  prepare(shape: MachineShape, signal: AbortSignal): Promise<TemplateInfo>;
  list(signal: AbortSignal): Promise<readonly TemplateInfo[]>;
  /** Clones of it run on. Succeeds on what is gone. */
  remove(id: string, signal: AbortSignal): Promise<void>;
}

/** Machines that wait without running: hibernated or suspended, memory and all, for a small part of the price. */
export interface Power {
  /** To state `suspended`. Succeeds on what is suspended already; fails with a `terminal` fault on what is gone. */
  suspend(ids: readonly InstanceId[], signal: AbortSignal): Promise<void>;
  /** Back to `running`, where it was; its address may be another. Succeeds on what runs. Faults as with `suspend`. */
  resume(ids: readonly InstanceId[], signal: AbortSignal): Promise<void>;
}

/** One thing that a provider could make for a pod. */
export interface ExplainedOffer {
  readonly type: string;
  readonly zone: string;
  readonly market: string;
  /** US dollars. */
  readonly pricePerHour: number;
  /** True when no price list names it. */
  readonly estimated: boolean;
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly gpus: { readonly model: string; readonly count: number } | undefined;
}

export interface Explanation {
  /** What will do, best first: the order in which it is asked for. */
  readonly ranked: readonly ExplainedOffer[];
  readonly rejected: readonly { readonly offer: ExplainedOffer; readonly reason: string }[];
}

/** Something of this node's that costs money and belongs to no machine. */
export interface Leftover {
  readonly kind: 'disk' | 'interface' | 'address';
  readonly id: string;
  readonly tags: Readonly<Record<string, string>>;
  /** Milliseconds since the epoch; undefined where the provider does not tell. */
  readonly createdAt: number | undefined;
}

/** Finds and removes what machines may have left behind. */
export interface Leftovers {
  /** All with this node's tags that no machine uses. */
  list(signal: AbortSignal): Promise<readonly Leftover[]>;
  /** Succeeds on what is gone. */
  remove(leftover: Leftover, signal: AbortSignal): Promise<void>;
}

/** Block volumes that exist already (an EBS volume, a persistent disk), in running machines. */
export interface Volumes {
  /**
   * Resolves when the machine has it, with the serial number by which its kernel knows the disk. Succeeds when it has it
   * already; fails with an `invalid` fault when there is no such volume, or another machine has it.
   */
  attach(id: InstanceId, volume: string, signal: AbortSignal): Promise<{ readonly serial: string }>;
  /** Resolves when the volume is free again. Succeeds when the machine does not have it, or is gone. */
  detach(id: InstanceId, volume: string, signal: AbortSignal): Promise<void>;
}

/** What a provider has asked of its cloud so far. Classes and outcomes are few: they are labels of metrics. */
export interface ProviderFigures {
  readonly calls: readonly {
    readonly class: string;
    /** `ok`, or the kind of the fault. */
    readonly outcome: string;
    readonly count: number;
    readonly seconds: number;
  }[];
  readonly classes: readonly {
    readonly class: string;
    /** Calls that wait for their turn now. */
    readonly waiting: number;
    /** Calls that the cloud has refused for coming too often. */
    readonly throttles: number;
  }[];
}

export interface Provider extends AsyncDisposable {
  readonly name: string;
  /** True when machines cost money until they are ended: they then end themselves when their node is gone (`machine.lease`). */
  readonly leased?: boolean;
  /**
   * True when its machines' pod link is a tunnel (`vxlan`): a machine is told of it with its pod, so it must be there before.
   * @default false
   */
  readonly linkFirst?: boolean;
  /**
   * True when a machine brings its pod's address with it (pod link `direct`): the pod's network is known with the machine only.
   * @default false
   */
  readonly directPods?: boolean;
  /** Makes machines. One result per request, in any order; a failed one does not fail the others. */
  launch(batch: readonly LaunchRequest[], signal: AbortSignal): Promise<readonly LaunchResult[]>;
  /** What exists. Ids that are unknown are left out; tombstones may be reported as `terminated`. */
  describe(query: DescribeQuery, signal: AbortSignal): Promise<readonly Instance[]>;
  /** Ends machines and everything that came with them (disks, taps, cgroups, files). Succeeds on what is gone. */
  terminate(ids: readonly InstanceId[], signal: AbortSignal): Promise<void>;
  classify(error: unknown): Fault;
  /** The end of the machine's console, for error messages; empty when there is none. Untrusted text. */
  console(id: InstanceId, maxBytes: number, signal: AbortSignal): Promise<string>;
  readonly usage?: (id: InstanceId, signal: AbortSignal) => Promise<MachineUsage>;
  readonly leftovers?: Leftovers;
  /** What would be made for such a pod now, and why all else was left out. Makes nothing. Only where there is a choice. */
  readonly explain?: (shape: MachineShape, placement: Placement, signal: AbortSignal) => Promise<Explanation>;
  readonly clone?: Cloning;
  readonly power?: Power;
  readonly volumes?: Volumes;
  /**
   * Gives a running machine as much as `shape` says, no more than it was made with. What cannot be changed while it runs
   * stays; the CPU, where it is shared, can. Safe to repeat.
   */
  readonly resize?: (id: InstanceId, shape: MachineShape, signal: AbortSignal) => Promise<void>;
  /** What a running machine of this shape costs per hour, in a currency that all shapes share; undefined: unknown. */
  readonly hourlyPrice?: (shape: MachineShape) => number | undefined;
  /** From memory; only of providers that call a cloud. */
  readonly figures?: () => ProviderFigures;
  /** What this host or account can do, and what is missing. Does not change anything outside its own cache. */
  doctor(signal: AbortSignal): Promise<readonly Check[]>;
}

/** What the daemon hands to a provider. */
export interface ProviderContext {
  readonly log: Logger;
  readonly clock: Clock;
  /** Directory for the provider's own durable files; made by the daemon. */
  readonly stateDir: string;
  /** Directory of the guest image (see guest-image/manifest.ts). */
  readonly guestImageDir: string;
  /** Tags that every machine of this node carries (cluster and node), and by which all of them are found. */
  readonly owner: Readonly<Record<string, string>>;
}

export interface ProviderModule<Config = unknown> {
  readonly name: string;
  /** Parses the provider's own section of the configuration; throws InfraletError INVALID_ARGUMENT with the path. */
  readonly parseConfig: (section: unknown) => Config;
  readonly create: (config: Config, context: ProviderContext, signal: AbortSignal) => Promise<Provider>;
  /**
   * Makes the cloud's own kind of image of the disk, `infralet image publish`. The section may lack everything that publishing
   * does not need. Safe to repeat: an image that is there already is found again. What fails leaves nothing that costs, or
   * says what is left.
   */
  readonly publish?: (section: unknown, disk: PublishRequest, signal: AbortSignal) => Promise<PublishedImage>;
}

export interface PublishRequest {
  /** From the command line, above those of the section. */
  readonly settings: Readonly<Record<string, string>>;
  /** The raw disk. */
  readonly file: string;
  /** Bytes, a whole number of GiB. */
  readonly size: number;
  /** Of the image, the same for the same disk: letters, digits and dashes, at most 60. */
  readonly name: string;
  readonly description: string;
  /** Put on everything that is made. */
  readonly tags: Readonly<Record<string, string>>;
  /** One line of text per step. */
  readonly onProgress: (line: string) => void;
}

export interface PublishedImage {
  readonly id: string;
  /** The key of the provider's section that takes the id. */
  readonly setting: string;
  /** True when it was there already. */
  readonly existed: boolean;
}
