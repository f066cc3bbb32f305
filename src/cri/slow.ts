/** How long an RPC may take before it is worth a warning, in milliseconds. */

/** Answers from memory. */
const MEMORY_MS = 1000;
/** A few round trips into a machine. */
const MACHINE_MS = 30_000;

const SLOW_MS: Readonly<Record<string, number>> = {
  // A machine boots.
  RunPodSandbox: 60_000,
  StopPodSandbox: MACHINE_MS,
  RemovePodSandbox: MACHINE_MS,
  CreateContainer: MACHINE_MS,
  StartContainer: MACHINE_MS,
  RemoveContainer: MACHINE_MS,
  // As long as the image is big, the grace period, the command.
  PullImage: Number.POSITIVE_INFINITY,
  StopContainer: Number.POSITIVE_INFINITY,
  ExecSync: Number.POSITIVE_INFINITY,
};

export function slowMs(rpc: string): number {
  return SLOW_MS[rpc] ?? MEMORY_MS;
}
