/** A pod's network on the node, made by CNI, as the rest of the daemon sees it. */
import type { SandboxId } from '../base/ids.ts';
import type { PodLink } from '../cloud/contract.ts';

export interface PodNetworkSpec {
  readonly sandboxId: SandboxId;
  readonly podName: string;
  readonly podNamespace: string;
  readonly podUid: string;
  readonly portMappings: readonly {
    readonly hostPort: number;
    readonly containerPort: number;
    readonly protocol: 'tcp' | 'udp' | 'sctp';
    readonly hostIp: string;
  }[];
}

/** What the machine's pod NIC must look like; JSON, journalled. */
export interface PodNetworkResult {
  /** Path of the pod's network namespace on the node. */
  readonly netns: string;
  /** Hardware address that the machine's NIC takes over. */
  readonly mac: string;
  readonly mtu: number;
  /** Addresses with prefix length; the first is the pod IP. */
  readonly addresses: readonly { readonly address: string; readonly gateway: string | undefined }[];
  readonly routes: readonly { readonly destination: string; readonly gateway: string | undefined }[];
}

/** What a machine that is elsewhere must know to make its end of the link; JSON, journalled. Addresses as the machine sees them. */
export interface VxlanLink {
  /** VXLAN network identifier; no other pod of this node has it. */
  readonly vni: number;
  /** The node's address, and the machine's. */
  readonly local: string;
  readonly remote: string;
  /** UDP port of both. */
  readonly port: number;
  /** Of the pod: what fits through on the node's side. */
  readonly mtu: number;
}

/** A pod whose address is the cloud's own, and the machine's by which it is reached; JSON, journalled. */
export interface DirectLink {
  readonly machine: string;
  readonly pod: string;
}

export interface PodNetwork {
  /** Whether a configuration and its plugins are there; for Status and doctor. */
  ready(signal: AbortSignal): Promise<{ readonly ok: boolean; readonly reason: string }>;
  /** Makes the namespace and runs CNI ADD. Repeated after a crash it first cleans up what the last try left. */
  add(spec: PodNetworkSpec, signal: AbortSignal): Promise<PodNetworkResult>;
  check(spec: PodNetworkSpec, result: PodNetworkResult, signal: AbortSignal): Promise<void>;
  /** Joins the machine's link to the namespace; idempotent. Resolves with what the machine must be told, if anything. */
  join(
    spec: PodNetworkSpec,
    result: PodNetworkResult,
    link: PodLink,
    signal: AbortSignal,
  ): Promise<VxlanLink | undefined>;
  /** CNI DEL and removal of the namespace; succeeds on what is gone. */
  remove(spec: PodNetworkSpec, signal: AbortSignal): Promise<void>;
  /** Sandboxes for which this node still has a namespace; for the sweep after a crash. */
  list(signal: AbortSignal): Promise<readonly SandboxId[]>;
}
