/** What the CRI layer asks of figures: the newest of each pod and container, from memory. */
import type { ContainerId, SandboxId } from '../base/ids.ts';

/** Bytes and microseconds; counters count from the start of the container, or of the pod. */
export interface GroupUsage {
  readonly cpuUs: number;
  readonly cpuUserUs: number;
  readonly cpuSystemUs: number;
  readonly cpuPeriods: number;
  readonly cpuThrottledPeriods: number;
  readonly cpuThrottledUs: number;
  readonly memory: number;
  readonly memoryLimit: number | undefined;
  readonly memoryPeak: number;
  readonly anon: number;
  readonly file: number;
  readonly kernel: number;
  readonly mappedFile: number;
  readonly activeAnon: number;
  readonly inactiveAnon: number;
  readonly activeFile: number;
  readonly inactiveFile: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
  readonly swap: number;
  /** What swap it may still take; never more than the machine has. */
  readonly swapLimit: number;
  readonly limitHits: number;
  readonly oomKills: number;
  readonly pids: number;
  readonly pidsLimit: number | undefined;
  readonly readBytes: number;
  readonly writeBytes: number;
  readonly reads: number;
  readonly writes: number;
  /** Undefined where the machine's kernel keeps no account of it. */
  readonly cpuPressure: PressureUsage | undefined;
  readonly memoryPressure: PressureUsage | undefined;
  readonly ioPressure: PressureUsage | undefined;
}

export interface PressureUsage {
  readonly some: StallUsage;
  readonly full: StallUsage;
}

export interface StallUsage {
  readonly totalUs: number;
  /** Percent of the last 10, 60 and 300 seconds. */
  readonly avg10: number;
  readonly avg60: number;
  readonly avg300: number;
}

export interface LayerUsage {
  readonly bytes: number;
  readonly inodes: number;
  /** When it was looked at, milliseconds since the epoch. */
  readonly at: number;
}

export interface InterfaceUsage {
  readonly name: string;
  readonly rxBytes: number;
  readonly rxPackets: number;
  readonly rxErrors: number;
  readonly rxDropped: number;
  readonly txBytes: number;
  readonly txPackets: number;
  readonly txErrors: number;
  readonly txDropped: number;
}

/** A rate needs two samples that are some time apart: this is the earlier one. */
export interface RateBase {
  readonly cpuUs: number;
  /** Of the machine's own monotonic clock. */
  readonly monotonicUs: number;
}

export interface ContainerUsage {
  /** When the sample arrived, milliseconds since the epoch by the node's clock. */
  readonly at: number;
  readonly usage: GroupUsage;
  /** Thousand millionths of a processor; undefined until there are two samples. */
  readonly nanoCores: number | undefined;
  readonly base: RateBase;
  /** What it has written into its root; undefined until the machine has looked. */
  readonly layer: LayerUsage | undefined;
}

export interface PodUsage {
  readonly at: number;
  readonly usage: GroupUsage;
  readonly nanoCores: number | undefined;
  readonly base: RateBase;
  readonly interfaces: readonly InterfaceUsage[];
}

export interface StatsService {
  /** The newest; undefined when there is none (yet). Another object with every sample. */
  container(id: ContainerId): ContainerUsage | undefined;
  pod(id: SandboxId): PodUsage | undefined;
  /** Asks the machine when the newest is missing or old; the old one when the machine does not answer. */
  freshContainer(id: ContainerId, signal: AbortSignal): Promise<ContainerUsage>;
  freshPod(id: SandboxId, signal: AbortSignal): Promise<PodUsage>;
}
