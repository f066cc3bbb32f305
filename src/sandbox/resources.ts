/** What a pod may use of its machine, when that changes while it runs. Pure. */
import { z } from 'zod';
import { InfraletError } from '../base/errors.ts';
import type { MachineShape } from '../cloud/contract.ts';
import type { LinuxContainerResources__Output } from '../gen/runtime/v1/LinuxContainerResources.ts';
import type { GuestPodResources } from '../guest/channel.ts';

/** As the journal keeps them; see GuestPodResources. */
export const podResourcesSchema = z.object({
  memoryBytes: z.number(),
  cpuQuota: z.number(),
  cpuPeriod: z.number(),
  cpuShares: z.number(),
});

/**
 * @param overheadMemory bytes of the machine that its kernel, containerd and agent need
 * Throws RESOURCE_EXHAUSTED for more than the machine has: it was made for the pod's first limits and does not grow.
 */
export function podResources(
  pod: string,
  resources: LinuxContainerResources__Output,
  machine: MachineShape,
  overheadMemory: number,
): GuestPodResources {
  const wanted = {
    memoryBytes: Number(resources.memoryLimitInBytes),
    cpuQuota: Number(resources.cpuQuota),
    cpuPeriod: Number(resources.cpuPeriod),
    cpuShares: Number(resources.cpuShares),
  };
  const room = machine.memoryBytes - overheadMemory;
  if (wanted.memoryBytes > room) refuse(pod, wanted.memoryBytes, 'bytes of memory', room);
  if (wanted.cpuQuota > 0 && wanted.cpuPeriod > 0) {
    const millis = Math.ceil((wanted.cpuQuota * 1000) / wanted.cpuPeriod);
    if (millis > machine.cpuMillis) refuse(pod, millis, 'thousandths of a CPU', machine.cpuMillis);
  }
  return wanted;
}

function refuse(pod: string, wanted: number, unit: string, most: number): never {
  throw new InfraletError(
    'RESOURCE_EXHAUSTED',
    `pod ${pod} cannot grow to ${wanted} ${unit}: its machine has ${most}`,
    {
      hint: 'a machine keeps the size that its pod asked for at first: make the pod anew with higher limits',
    },
  );
}
