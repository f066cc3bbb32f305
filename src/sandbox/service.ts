/** What the CRI layer asks of pod sandboxes. Requests are validated by the CRI layer; errors are InfraletError. */

import type { SandboxId } from '../base/ids.ts';
import type { LinuxContainerResources__Output } from '../gen/runtime/v1/LinuxContainerResources.ts';
import type { PodSandboxConfig__Output } from '../gen/runtime/v1/PodSandboxConfig.ts';

export interface SandboxView {
  readonly id: SandboxId;
  readonly config: PodSandboxConfig__Output;
  readonly runtimeHandler: string;
  readonly ready: boolean;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
  /** Pod IPs, the main one first; empty for host network and after the pod's end. */
  readonly ips: readonly string[];
  /** For verbose status: state, machine, timeline, last error; JSON-able. */
  readonly info: () => Readonly<Record<string, unknown>>;
}

export interface SandboxService {
  /**
   * Blocks until ready. A second call for the same pod and attempt joins the first.
   * @param traceparent of the call, whose trace the sandbox's becomes.
   */
  run(
    config: PodSandboxConfig__Output,
    runtimeHandler: string,
    signal: AbortSignal,
    traceparent?: string,
  ): Promise<SandboxId>;
  /** Idempotent; succeeds on the unknown. */
  stop(id: string, signal: AbortSignal): Promise<void>;
  /** Idempotent; succeeds on the unknown. */
  remove(id: string, signal: AbortSignal): Promise<void>;
  /** What all containers together may use of the machine, in force when it resolves. Refuses more than the machine has. */
  updateResources(
    id: string,
    resources: LinuxContainerResources__Output | null,
    overhead: LinuxContainerResources__Output | null,
    signal: AbortSignal,
  ): Promise<void>;
  /** From memory; also by unique prefix. Throws NOT_FOUND. */
  get(id: string): SandboxView;
  /** The same array as long as nothing changes. */
  list(): readonly SandboxView[];
  /** State, machine, timeline and last error as JSON; also of one that is still being made. Throws NOT_FOUND. */
  describe(id: string): Readonly<Record<string, unknown>>;
}
