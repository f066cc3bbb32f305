/** Figures are sent by the thousand, new ones every time: encoded as items of their lists (field 1); see rpc/encoder.ts. */
import type { ContainerMetrics } from '../gen/runtime/v1/ContainerMetrics.ts';
import type { ContainerStats } from '../gen/runtime/v1/ContainerStats.ts';
import type { CpuUsage } from '../gen/runtime/v1/CpuUsage.ts';
import type { FilesystemUsage } from '../gen/runtime/v1/FilesystemUsage.ts';
import type { IoUsage } from '../gen/runtime/v1/IoUsage.ts';
import type { LinuxPodSandboxStats } from '../gen/runtime/v1/LinuxPodSandboxStats.ts';
import type { MemoryUsage } from '../gen/runtime/v1/MemoryUsage.ts';
import type { Metric } from '../gen/runtime/v1/Metric.ts';
import type { NetworkInterfaceUsage } from '../gen/runtime/v1/NetworkInterfaceUsage.ts';
import type { NetworkUsage } from '../gen/runtime/v1/NetworkUsage.ts';
import type { PodSandboxMetrics } from '../gen/runtime/v1/PodSandboxMetrics.ts';
import type { PodSandboxStats } from '../gen/runtime/v1/PodSandboxStats.ts';
import type { ProcessUsage } from '../gen/runtime/v1/ProcessUsage.ts';
import type { PsiData } from '../gen/runtime/v1/PsiData.ts';
import type { PsiStats } from '../gen/runtime/v1/PsiStats.ts';
import type { SwapUsage } from '../gen/runtime/v1/SwapUsage.ts';
import type { UInt64Value } from '../gen/runtime/v1/UInt64Value.ts';
import { double, encoded, kept, message, repeated, text, textItem, varint, type Write } from '../rpc/encoder.ts';

type Long = UInt64Value['value'];

/** What we put into 64-bit fields is a number or a text. */
const uint64 = (field: number): Write<Long | undefined> => {
  const write = varint(field);
  return (value) => write(typeof value === 'object' ? value.toString() : value);
};

/** Writers come in the order of their field numbers; the encoder begins with the last one. */
const fields =
  <Value>(...writers: readonly Write<Value>[]): Write<Value> =>
  (value) => {
    for (let at = writers.length - 1; at >= 0; at -= 1) writers[at]?.(value);
  };
const of =
  <Value, Part>(get: (value: Value) => Part, write: Write<Part>): Write<Value> =>
  (value) =>
    write(get(value));

const value = (field: number) =>
  message<UInt64Value>(
    field,
    of((v) => v.value, uint64(1)),
  );

const stall = (field: number) =>
  message<PsiData>(
    field,
    fields(
      of((d) => d.Total, uint64(1)),
      of((d) => Number(d.Avg10 ?? 0), double(2)),
      of((d) => Number(d.Avg60 ?? 0), double(3)),
      of((d) => Number(d.Avg300 ?? 0), double(4)),
    ),
  );
const psi = (field: number) =>
  message<PsiStats>(
    field,
    fields(
      of((p) => p.Full, stall(1)),
      of((p) => p.Some, stall(2)),
    ),
  );

const cpu = (field: number) =>
  message<CpuUsage>(
    field,
    fields(
      of((c) => c.timestamp, uint64(1)),
      of((c) => c.usageCoreNanoSeconds, value(2)),
      of((c) => c.usageNanoCores, value(3)),
      of((c) => c.psi, psi(4)),
    ),
  );
const memory = (field: number) =>
  message<MemoryUsage>(
    field,
    fields(
      of((m) => m.timestamp, uint64(1)),
      of((m) => m.workingSetBytes, value(2)),
      of((m) => m.availableBytes, value(3)),
      of((m) => m.usageBytes, value(4)),
      of((m) => m.rssBytes, value(5)),
      of((m) => m.pageFaults, value(6)),
      of((m) => m.majorPageFaults, value(7)),
      of((m) => m.psi, psi(8)),
    ),
  );
const io = (field: number) =>
  message<IoUsage>(
    field,
    fields(
      of((i) => i.timestamp, uint64(1)),
      of((i) => i.psi, psi(2)),
    ),
  );
const swap = (field: number) =>
  message<SwapUsage>(
    field,
    fields(
      of((s) => s.timestamp, uint64(1)),
      of((s) => s.swapAvailableBytes, value(2)),
      of((s) => s.swapUsageBytes, value(3)),
    ),
  );
const filesystem = (field: number) =>
  message<FilesystemUsage>(
    field,
    fields(
      of((f) => f.timestamp, uint64(1)),
      of(
        (f) => f.fsId,
        message(
          2,
          of((id) => id.mountpoint, text(1)),
        ),
      ),
      of((f) => f.usedBytes, value(3)),
      of((f) => f.inodesUsed, value(4)),
    ),
  );

type Texts = Readonly<Record<string, string>>;
const map = (field: number): Write<Texts | undefined> => {
  const entry = message<readonly [string, string]>(
    field,
    fields(
      of(([key]) => key, text(1)),
      of(([, to]) => to, text(2)),
    ),
  );
  const entries = repeated(entry);
  return (texts = {}) => entries(Object.entries(texts));
};

interface Attributes {
  readonly id?: string;
  readonly metadata?: { name?: string; uid?: string; namespace?: string; attempt?: number } | null;
  readonly labels?: Texts;
  readonly annotations?: Texts;
}
const attributes = (metadata: Write<Attributes['metadata']>) =>
  kept(
    message<Attributes>(
      1,
      fields(
        of((a) => a.id, text(1)),
        of((a) => a.metadata, metadata),
        of((a) => a.labels, map(3)),
        of((a) => a.annotations, map(4)),
      ),
    ),
  );
const ofContainer = attributes(
  message(
    2,
    fields(
      of((m) => m.name, text(1)),
      of((m) => m.attempt, varint(2)),
    ),
  ),
);
const ofPod = attributes(
  message(
    2,
    fields(
      of((m) => m.name, text(1)),
      of((m) => m.uid, text(2)),
      of((m) => m.namespace, text(3)),
      of((m) => m.attempt, varint(4)),
    ),
  ),
);

const containerStats = (field: number) =>
  message<ContainerStats>(
    field,
    fields(
      of((s) => s.attributes as Attributes | null, ofContainer),
      of((s) => s.cpu, cpu(2)),
      of((s) => s.memory, memory(3)),
      of((s) => s.writableLayer, filesystem(4)),
      of((s) => s.swap, swap(5)),
      of((s) => s.io, io(6)),
    ),
  );

const networkInterface = (field: number) =>
  message<NetworkInterfaceUsage>(
    field,
    fields(
      of((i) => i.name, text(1)),
      of((i) => i.rxBytes, value(2)),
      of((i) => i.rxErrors, value(3)),
      of((i) => i.txBytes, value(4)),
      of((i) => i.txErrors, value(5)),
    ),
  );
const network = (field: number) =>
  message<NetworkUsage>(
    field,
    fields(
      of((n) => n.timestamp, uint64(1)),
      of((n) => n.defaultInterface, networkInterface(2)),
      of((n) => n.interfaces, repeated(networkInterface(3))),
    ),
  );
const processes = (field: number) =>
  message<ProcessUsage>(
    field,
    fields(
      of((p) => p.timestamp, uint64(1)),
      of((p) => p.processCount, value(2)),
    ),
  );

const podStats = message<PodSandboxStats>(
  1,
  fields(
    of((s) => s.attributes as Attributes | null, ofPod),
    of(
      (s) => s.linux,
      message<LinuxPodSandboxStats>(
        2,
        fields(
          of((l) => l.cpu, cpu(1)),
          of((l) => l.memory, memory(2)),
          of((l) => l.network, network(3)),
          of((l) => l.process, processes(4)),
          of((l) => l.containers, repeated(containerStats(5))),
          of((l) => l.io, io(6)),
        ),
      ),
    ),
  ),
);

const METRIC_TYPES = { COUNTER: 0, GAUGE: 1 } as const;
/** The same labels, the same array. */
const labels = kept<string[]>(repeated(textItem(4)));
const metric = (field: number) =>
  message<Metric>(
    field,
    fields(
      of((m) => m.name, text(1)),
      of((m) => m.timestamp, uint64(2)),
      of((m) => METRIC_TYPES[m.metricType as keyof typeof METRIC_TYPES], varint(3)),
      of((m) => m.labelValues, labels),
      of((m) => m.value, value(5)),
    ),
  );
const podMetrics = message<PodSandboxMetrics>(
  1,
  fields(
    of((p) => p.podSandboxId, text(1)),
    of((p) => p.metrics, repeated(metric(2))),
    of(
      (p) => p.containerMetrics,
      repeated(
        message<ContainerMetrics>(
          3,
          fields(
            of((c) => c.containerId, text(1)),
            of((c) => c.metrics, repeated(metric(2))),
          ),
        ),
      ),
    ),
  ),
);

const containerStatsItem = containerStats(1);

/** One item of a ListContainerStatsResponse. */
export const encodeContainerStats = (item: ContainerStats): Buffer => encoded(containerStatsItem, item);
/** One item of a ListPodSandboxStatsResponse. */
export const encodePodStats = (item: PodSandboxStats): Buffer => encoded(podStats, item);
/** One item of a ListPodSandboxMetricsResponse. */
export const encodePodMetrics = (item: PodSandboxMetrics): Buffer => encoded(podMetrics, item);
