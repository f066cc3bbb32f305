/** What the CRI layer asks of containers. Requests are validated by the CRI layer; errors are InfraletError. */
import type { Duplex } from 'node:stream';
import type { ContainerId, SandboxId } from '../base/ids.ts';
import type { ContainerConfig__Output } from '../gen/runtime/v1/ContainerConfig.ts';
import type { ContainerStatus__Output } from '../gen/runtime/v1/ContainerStatus.ts';
import type { ExecSyncResponse__Output } from '../gen/runtime/v1/ExecSyncResponse.ts';
import type { LinuxContainerResources__Output } from '../gen/runtime/v1/LinuxContainerResources.ts';
import type { PodSandboxConfig__Output } from '../gen/runtime/v1/PodSandboxConfig.ts';

export const CONTAINER_STATES = [
  'CONTAINER_CREATED',
  'CONTAINER_RUNNING',
  'CONTAINER_EXITED',
  'CONTAINER_UNKNOWN',
] as const;
export type ContainerState = (typeof CONTAINER_STATES)[number];

export interface ContainerView {
  readonly id: ContainerId;
  readonly sandboxId: SandboxId;
  readonly config: ContainerConfig__Output;
  readonly state: ContainerState;
  /** Image id (configuration digest). */
  readonly imageId: string;
  /** Repo digest of the image, or its id when it has none. */
  readonly imageRef: string;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
  /** Complete CRI status, from memory. */
  readonly status: () => ContainerStatus__Output;
  readonly info: () => Readonly<Record<string, unknown>>;
}

/** What a streaming session (exec, attach, port-forward) runs in the guest. */
export type StreamRequest =
  | {
      readonly kind: 'exec';
      readonly containerId: ContainerId;
      readonly cmd: readonly string[];
      readonly tty: boolean;
      readonly stdin: boolean;
      readonly stdout: boolean;
      readonly stderr: boolean;
    }
  | {
      readonly kind: 'attach';
      readonly containerId: ContainerId;
      readonly tty: boolean;
      readonly stdin: boolean;
      readonly stdout: boolean;
      readonly stderr: boolean;
    }
  | { readonly kind: 'portforward'; readonly sandboxId: SandboxId; readonly ports: readonly number[] };

/** A connection to containerd's streaming server in the guest, and the path that continues the request there. */
export interface GuestStream {
  readonly socket: Duplex;
  /** Path and query of the guest's own single-use URL. */
  readonly path: string;
  readonly host: string;
  /** What an exec or attach session consists of. */
  readonly streams?: {
    readonly tty: boolean;
    readonly stdin: boolean;
    readonly stdout: boolean;
    readonly stderr: boolean;
  };
}

export interface ContainerService {
  create(
    sandboxId: string,
    config: ContainerConfig__Output,
    sandboxConfig: PodSandboxConfig__Output | undefined,
    signal: AbortSignal,
  ): Promise<ContainerId>;
  start(id: string, signal: AbortSignal): Promise<void>;
  /** Idempotent; succeeds on the unknown. `timeoutSeconds` 0 kills at once. */
  stop(id: string, timeoutSeconds: number, signal: AbortSignal): Promise<void>;
  /** Idempotent; ends a running container first; succeeds on the unknown. */
  remove(id: string, signal: AbortSignal): Promise<void>;
  /** In force in the machine when it resolves; fields that are zero or empty stay as they are. */
  updateResources(id: string, update: LinuxContainerResources__Output, signal: AbortSignal): Promise<void>;
  /** The log's file was renamed: makes a new one and goes on there. Throws FAILED_PRECONDITION unless it runs. */
  reopenLog(id: string, signal: AbortSignal): Promise<void>;
  /** From memory; also by unique prefix. Throws NOT_FOUND. */
  get(id: string): ContainerView;
  /** The same array as long as nothing changes. */
  list(): readonly ContainerView[];
  /** `timeoutSeconds` 0: no limit. */
  execSync(
    id: string,
    cmd: readonly string[],
    timeoutSeconds: number,
    signal: AbortSignal,
  ): Promise<ExecSyncResponse__Output>;
  /** Throws NOT_FOUND or FAILED_PRECONDITION when the target of a session does not exist or does not run. */
  checkStream(request: StreamRequest): void;
  openStream(request: StreamRequest, signal: AbortSignal): Promise<GuestStream>;
}
