/** Resources of a container that change while it is there. Pure. */
import { z } from 'zod';
import { InfraletError } from '../base/errors.ts';
import type { MachineShape } from '../cloud/contract.ts';
import type { LinuxContainerResources__Output } from '../gen/runtime/v1/LinuxContainerResources.ts';

const NUMBERS = [
  'cpuPeriod',
  'cpuQuota',
  'cpuShares',
  'memoryLimitInBytes',
  'oomScoreAdj',
  'memorySwapLimitInBytes',
] as const;

/** As the journal keeps them. */
export const resourcesSchema = z.object({
  cpuPeriod: z.string(),
  cpuQuota: z.string(),
  cpuShares: z.string(),
  memoryLimitInBytes: z.string(),
  oomScoreAdj: z.string(),
  cpusetCpus: z.string(),
  cpusetMems: z.string(),
  hugepageLimits: z.array(z.object({ pageSize: z.string(), limit: z.string() })),
  unified: z.record(z.string(), z.string()),
  memorySwapLimitInBytes: z.string(),
});

/** CPU and memory node numbers are the node's own; the machine has its own. */
export function forGuest(resources: LinuxContainerResources__Output): LinuxContainerResources__Output {
  return { ...resources, cpusetCpus: '', cpusetMems: '' };
}

/** The present values with those of an update, which leaves alone what it does not name. */
export function withUpdate(
  before: LinuxContainerResources__Output | null,
  update: LinuxContainerResources__Output,
): LinuxContainerResources__Output {
  if (!before) return update;
  const numbers = Object.fromEntries(
    NUMBERS.map((key): [string, string] => [key, update[key] === '0' ? before[key] : update[key]]),
  );
  return {
    ...before,
    ...numbers,
    cpusetCpus: update.cpusetCpus || before.cpusetCpus,
    cpusetMems: update.cpusetMems || before.cpusetMems,
    hugepageLimits: update.hugepageLimits.length > 0 ? update.hugepageLimits : before.hugepageLimits,
    unified: { ...before.unified, ...update.unified },
  };
}

/** A limit above the machine is no limit: whoever asks for more shall not believe to have got it. */
export function refuseAboveMachine(
  what: string,
  resources: LinuxContainerResources__Output,
  machine: MachineShape,
): void {
  const memory = Number(resources.memoryLimitInBytes);
  if (memory > machine.memoryBytes) refuse(what, memory, 'bytes of memory', machine.memoryBytes);
  const quota = Number(resources.cpuQuota);
  const period = Number(resources.cpuPeriod);
  if (quota <= 0 || period <= 0) return;
  const millis = Math.ceil((quota * 1000) / period);
  if (millis > machine.cpuMillis) refuse(what, millis, 'thousandths of a CPU', machine.cpuMillis);
}

function refuse(what: string, wanted: number, unit: string, most: number): never {
  throw new InfraletError('RESOURCE_EXHAUSTED', `${what} cannot have ${wanted} ${unit}; its machine has ${most}`, {
    hint: 'a machine keeps the size that its pod asked for at first: make the pod anew with higher limits',
  });
}
