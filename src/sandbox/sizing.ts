/** How big a pod's machine is. Pure. */
import { InfraletError } from '../base/errors.ts';
import type { MachineShape } from '../cloud/contract.ts';
import type { Config } from '../config/schema.ts';
import type { LinuxContainerResources__Output } from '../gen/runtime/v1/LinuxContainerResources.ts';
import type { GuestPodResources } from '../guest/channel.ts';

/** The fields of the CRI's resources that decide on a machine's size. */
export type CriResources = Pick<
  LinuxContainerResources__Output,
  'cpuPeriod' | 'cpuQuota' | 'cpuShares' | 'memoryLimitInBytes'
>;

/** What the CRI has no field for; bytes. */
export interface ExtraSizes {
  /** Memory request: for a pod without a limit. */
  readonly memoryBytes?: number | undefined;
  readonly diskBytes?: number | undefined;
}

/** The kernel's scale: 1024 shares are one CPU. */
const SHARES_PER_CPU = 1024;
/** What the kubelet sends for a pod without a CPU request. */
const MIN_SHARES = 2;

/**
 * Shape for a pod's resources as the kubelet sends them (limits; memory requests are not in the CRI).
 * CPU: the quota if there is one, else the shares, else the default. Memory: the limit, else the request if the pod names one
 * (`extra`), else the default. The guest's own overhead comes on top, the pod's overhead (RuntimeClass) too; then the
 * configured bounds apply.
 */
export function machineShape(
  resources: CriResources | null,
  overhead: CriResources | null,
  config: Config['machine'],
  extra: ExtraSizes = {},
): MachineShape {
  return podShape(
    {
      cpuMillis: (cpuMillis(resources) ?? config.defaultCpuMillis) + (cpuMillis(overhead) ?? 0),
      memoryBytes:
        (positive(resources?.memoryLimitInBytes) ?? extra.memoryBytes ?? config.defaultMemory) +
        (positive(overhead?.memoryLimitInBytes) ?? 0),
      diskBytes: extra.diskBytes,
    },
    config,
  );
}

/** The same for a pod of which only its limits are known; the configuration's defaults where there is none. */
export function podShape(
  limits: {
    readonly cpuMillis: number | undefined;
    readonly memoryBytes: number | undefined;
    readonly diskBytes?: number | undefined;
  },
  config: Config['machine'],
): MachineShape {
  const cpu = limits.cpuMillis ?? config.defaultCpuMillis;
  const total = (limits.memoryBytes ?? config.defaultMemory) + config.overheadMemory;
  refuseAbove('CPU', cpu, config.maxCpuMillis, 'thousandths of a CPU', 'machine.maxCpuMillis');
  const disk = limits.diskBytes === undefined ? config.disk : Math.max(limits.diskBytes, config.minDisk);
  refuseAbove('memory', total, config.maxMemory, 'bytes', 'machine.maxMemory');
  refuseAbove('disk', disk, config.maxDisk, 'bytes', 'machine.maxDisk');
  return {
    cpuMillis: Math.ceil(Math.max(cpu, config.minCpuMillis)),
    memoryBytes: Math.ceil(Math.max(total, config.minMemory)),
    diskBytes: Math.ceil(disk),
  };
}

/**
 * Bounds of the pod inside its machine, which may be larger than what was asked for: a template serves many sizes, and
 * the machine's own programs need their part. A pod that names no limit gets what its machine was made for.
 */
export function podLimits(
  resources: CriResources | null,
  overhead: CriResources | null,
  shape: MachineShape,
  config: Config['machine'],
): GuestPodResources {
  const limit = positive(resources?.memoryLimitInBytes);
  const quota = positive(resources?.cpuQuota);
  const period = positive(resources?.cpuPeriod);
  const bounded = quota !== undefined && period !== undefined;
  return {
    memoryBytes:
      limit === undefined
        ? shape.memoryBytes - config.overheadMemory
        : limit + (positive(overhead?.memoryLimitInBytes) ?? 0),
    cpuQuota: bounded ? Math.ceil(quota + ((cpuMillis(overhead) ?? 0) * period) / 1000) : -1,
    cpuPeriod: bounded ? period : 0,
    cpuShares: 0,
  };
}

/** A machine smaller than its pod would only fail later and less clearly. */
function refuseAbove(what: string, wanted: number, most: number, unit: string, key: string): void {
  if (wanted <= most) return;
  throw new InfraletError(
    'RESOURCE_EXHAUSTED',
    `the pod needs ${wanted} ${unit} of ${what}; the largest machine has ${most}`,
    {
      hint: `lower what the pod asks for, or raise ${key} in the configuration`,
    },
  );
}

function cpuMillis(resources: CriResources | null): number | undefined {
  if (!resources) return undefined;
  const quota = positive(resources.cpuQuota);
  const period = positive(resources.cpuPeriod);
  if (quota !== undefined && period !== undefined) return Math.ceil((quota * 1000) / period);
  const shares = positive(resources.cpuShares);
  if (shares !== undefined && shares > MIN_SHARES) return Math.ceil((shares * 1000) / SHARES_PER_CPU);
  return undefined;
}

/** CRI integers are decimal strings; 0 and -1 mean "not set" and "unlimited". */
function positive(text: string | undefined): number | undefined {
  const value = Number(text ?? 0);
  return Number.isFinite(value) && value > 0 ? value : undefined;
}
