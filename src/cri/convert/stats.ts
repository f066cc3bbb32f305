/** Figures as the CRI shows them. Numbers are the newest sample's; what the sample lacks is left out. */
import { nanos } from '../../base/time.ts';
import type { ContainerView } from '../../container/service.ts';
import type { ContainerStats } from '../../gen/runtime/v1/ContainerStats.ts';
import type { CpuUsage } from '../../gen/runtime/v1/CpuUsage.ts';
import type { IoUsage } from '../../gen/runtime/v1/IoUsage.ts';
import type { MemoryUsage } from '../../gen/runtime/v1/MemoryUsage.ts';
import type { NetworkUsage } from '../../gen/runtime/v1/NetworkUsage.ts';
import type { PodSandboxStats } from '../../gen/runtime/v1/PodSandboxStats.ts';
import type { PsiStats } from '../../gen/runtime/v1/PsiStats.ts';
import type { SandboxView } from '../../sandbox/service.ts';
import type { ContainerUsage, GroupUsage, InterfaceUsage, PodUsage, PressureUsage } from '../../stats/service.ts';
import { memo } from './memo.ts';

/** The interface with the pod's address. */
const DEFAULT_INTERFACE = 'eth0';

/** What the kubelet counts for evictions: memory in use without the page cache that can go at once; as cadvisor. */
export function workingSet({ memory, inactiveFile }: GroupUsage): number {
  return Math.max(memory - inactiveFile, 0);
}

/** As with containerd, a container that does not run has its attributes and what it has written, and no more. */
export function containerStats(
  view: ContainerView,
  known: ContainerUsage | undefined,
  mountpoint: string,
): ContainerStats {
  const layer = known?.layer;
  const stats: ContainerStats = {
    attributes: attributesOf(view),
    writableLayer: layer
      ? {
          timestamp: nanos(layer.at),
          fsId: { mountpoint },
          usedBytes: { value: layer.bytes },
          inodesUsed: { value: layer.inodes },
        }
      : null,
  };
  if (!known || view.state !== 'CONTAINER_RUNNING') return stats;
  const { usage } = known;
  const timestamp = nanos(known.at);
  return {
    ...stats,
    cpu: cpu(known, timestamp),
    memory: memory(usage, timestamp),
    swap: {
      timestamp,
      swapAvailableBytes: { value: Math.max(usage.swapLimit - usage.swap, 0) },
      swapUsageBytes: { value: usage.swap },
    },
    io: io(usage, timestamp),
  };
}

/** @param containers of the pod, already converted. */
export function podStats(
  view: SandboxView,
  known: PodUsage | undefined,
  containers: ContainerStats[],
): PodSandboxStats {
  const timestamp = known && nanos(known.at);
  return {
    attributes: podAttributesOf(view),
    linux: {
      containers,
      ...(known && timestamp !== undefined
        ? {
            cpu: cpu(known, timestamp),
            memory: memory(known.usage, timestamp),
            network: network(known.interfaces, timestamp),
            process: { timestamp, processCount: { value: known.usage.pids } },
            io: io(known.usage, timestamp),
          }
        : {}),
    },
  };
}

function cpu({ usage, nanoCores }: ContainerUsage | PodUsage, timestamp: string): CpuUsage {
  return {
    timestamp,
    usageCoreNanoSeconds: { value: nanoseconds(usage.cpuUs) },
    usageNanoCores: nanoCores === undefined ? null : { value: nanoCores },
    psi: psi(usage.cpuPressure),
  };
}

function memory(usage: GroupUsage, timestamp: string): MemoryUsage {
  const working = workingSet(usage);
  const { memoryLimit } = usage;
  return {
    timestamp,
    workingSetBytes: { value: working },
    availableBytes: memoryLimit === undefined ? null : { value: Math.max(memoryLimit - working, 0) },
    usageBytes: { value: usage.memory },
    rssBytes: { value: usage.anon },
    pageFaults: { value: usage.pageFaults },
    majorPageFaults: { value: usage.majorPageFaults },
    psi: psi(usage.memoryPressure),
  };
}

/** The CRI has nothing but the pressure here. */
function io({ ioPressure }: GroupUsage, timestamp: string): IoUsage | null {
  return ioPressure ? { timestamp, psi: psi(ioPressure) } : null;
}

function psi(pressure: PressureUsage | undefined): PsiStats | null {
  if (!pressure) return null;
  const data = ({ totalUs, avg10, avg60, avg300 }: PressureUsage['some']) => ({
    Total: totalUs,
    Avg10: avg10,
    Avg60: avg60,
    Avg300: avg300,
  });
  return { Some: data(pressure.some), Full: data(pressure.full) };
}

function network(interfaces: readonly InterfaceUsage[], timestamp: string): NetworkUsage {
  const all = interfaces.map((each) => ({
    name: each.name,
    rxBytes: { value: each.rxBytes },
    rxErrors: { value: each.rxErrors },
    txBytes: { value: each.txBytes },
    txErrors: { value: each.txErrors },
  }));
  return {
    timestamp,
    defaultInterface: all.find(({ name }) => name === DEFAULT_INTERFACE) ?? all[0] ?? null,
    interfaces: all,
  };
}

/** As text: after some months of CPU time it is more than a number holds exactly. */
function nanoseconds(us: number): string {
  return `${us}000`;
}

/** The same object for a container whatever its figures: they are encoded once. */
const attributesOf = memo(({ id, config: { metadata, labels, annotations } }: ContainerView) => ({
  id,
  metadata,
  labels,
  annotations,
}));
const podAttributesOf = memo(({ id, config: { metadata, labels, annotations } }: SandboxView) => ({
  id,
  metadata,
  labels,
  annotations,
}));
