/**
 * Figures under the names and labels that cadvisor gave them, so that dashboards and alerts keep working. Values are whole
 * numbers in the CRI, seconds too. Disk figures are sums over the machine's disks and carry no device.
 */

import { nanos } from '../../base/time.ts';
import type { ContainerView } from '../../container/service.ts';
import type { ContainerMetrics } from '../../gen/runtime/v1/ContainerMetrics.ts';
import type { Metric } from '../../gen/runtime/v1/Metric.ts';
import type { MetricDescriptor } from '../../gen/runtime/v1/MetricDescriptor.ts';
import type { SandboxView } from '../../sandbox/service.ts';
import type { ContainerUsage, InterfaceUsage, PodUsage } from '../../stats/service.ts';
import { workingSet } from './stats.ts';

type Kind = 'COUNTER' | 'GAUGE';

interface Spec<Source> {
  readonly name: string;
  readonly help: string;
  readonly kind: Kind;
  /** Beyond those that all have. */
  readonly labels: readonly string[];
  /** One for each set of label values; undefined: not known of this source. */
  readonly values: (source: Source) => readonly (readonly [value: number | undefined, ...labels: string[]])[];
}

interface ContainerSource {
  readonly known: ContainerUsage;
  readonly view: ContainerView;
}

const LABELS = ['id', 'image', 'namespace', 'pod', 'container'] as const;
/** What cadvisor calls the container that holds the pod's namespaces. */
const POD = 'POD';

const US_PER_SECOND = 1_000_000;
const seconds = (us: number | undefined): number | undefined => (us === undefined ? undefined : us / US_PER_SECOND);

const plain = (
  kind: Kind,
  name: string,
  help: string,
  value: (usage: ContainerUsage['usage'], source: ContainerSource) => number | undefined,
): Spec<ContainerSource> => ({
  name,
  help,
  kind,
  labels: [],
  values: (source) => [[value(source.known.usage, source)]],
});

const CONTAINER: readonly Spec<ContainerSource>[] = [
  plain(
    'GAUGE',
    'container_last_seen',
    'When the container was last looked at, seconds since the epoch.',
    (_, { known }) => known.at / 1000,
  ),
  {
    name: 'container_cpu_usage_seconds_total',
    help: 'CPU time used, in seconds.',
    kind: 'COUNTER',
    labels: ['cpu'],
    values: ({ known }) => [[seconds(known.usage.cpuUs), 'total']],
  },
  plain('COUNTER', 'container_cpu_user_seconds_total', 'CPU time used outside of the kernel, in seconds.', (u) =>
    seconds(u.cpuUserUs),
  ),
  plain('COUNTER', 'container_cpu_system_seconds_total', 'CPU time used in the kernel, in seconds.', (u) =>
    seconds(u.cpuSystemUs),
  ),
  plain(
    'COUNTER',
    'container_cpu_cfs_periods_total',
    'Periods of the CPU limit that have passed.',
    (u) => u.cpuPeriods,
  ),
  plain(
    'COUNTER',
    'container_cpu_cfs_throttled_periods_total',
    'Periods in which the CPU limit was reached.',
    (u) => u.cpuThrottledPeriods,
  ),
  plain('COUNTER', 'container_cpu_cfs_throttled_seconds_total', 'Time that the CPU limit has cost, in seconds.', (u) =>
    seconds(u.cpuThrottledUs),
  ),
  plain('GAUGE', 'container_memory_usage_bytes', 'Memory in use, page cache included.', (u) => u.memory),
  plain(
    'GAUGE',
    'container_memory_working_set_bytes',
    'Memory in use without the page cache that can go at once.',
    workingSet,
  ),
  plain('GAUGE', 'container_memory_max_usage_bytes', 'Most memory ever in use.', (u) => u.memoryPeak),
  plain('GAUGE', 'container_memory_rss', 'Anonymous memory, in bytes.', (u) => u.anon),
  plain('GAUGE', 'container_memory_cache', 'Page cache, in bytes.', (u) => u.file),
  plain('GAUGE', 'container_memory_kernel_usage', 'Memory of the kernel, in bytes.', (u) => u.kernel),
  plain('GAUGE', 'container_memory_mapped_file', 'Files mapped into memory, in bytes.', (u) => u.mappedFile),
  plain('GAUGE', 'container_memory_swap', 'Swap in use, in bytes.', (u) => u.swap),
  plain('GAUGE', 'container_memory_active_anon_bytes', 'Anonymous memory used recently.', (u) => u.activeAnon),
  plain('GAUGE', 'container_memory_inactive_anon_bytes', 'Anonymous memory not used recently.', (u) => u.inactiveAnon),
  plain('GAUGE', 'container_memory_total_active_file_bytes', 'Page cache used recently.', (u) => u.activeFile),
  plain('GAUGE', 'container_memory_total_inactive_file_bytes', 'Page cache not used recently.', (u) => u.inactiveFile),
  plain('COUNTER', 'container_memory_failcnt', 'Times that the memory limit was reached.', (u) => u.limitHits),
  {
    name: 'container_memory_failures_total',
    help: 'Page faults.',
    kind: 'COUNTER',
    labels: ['failure_type', 'scope'],
    values: ({ known: { usage } }) => [
      [usage.pageFaults, 'pgfault', 'container'],
      [usage.majorPageFaults, 'pgmajfault', 'container'],
    ],
  },
  plain('COUNTER', 'container_oom_events_total', 'Processes killed for want of memory.', (u) => u.oomKills),
  plain(
    'GAUGE',
    'container_fs_usage_bytes',
    'Bytes that the container has written into its root.',
    (_, { known }) => known.layer?.bytes,
  ),
  plain('COUNTER', 'container_fs_reads_bytes_total', 'Bytes read from disks.', (u) => u.readBytes),
  plain('COUNTER', 'container_fs_writes_bytes_total', 'Bytes written to disks.', (u) => u.writeBytes),
  plain('COUNTER', 'container_fs_reads_total', 'Reads from disks.', (u) => u.reads),
  plain('COUNTER', 'container_fs_writes_total', 'Writes to disks.', (u) => u.writes),
  plain('GAUGE', 'container_threads', 'Threads in the container.', (u) => u.pids),
  plain(
    'GAUGE',
    'container_threads_max',
    'Most threads that the container may have; 0: no limit.',
    (u) => u.pidsLimit ?? 0,
  ),
  plain(
    'COUNTER',
    'container_pressure_cpu_waiting_seconds_total',
    'Time in which some thread waited for a CPU, in seconds.',
    (u) => seconds(u.cpuPressure?.some.totalUs),
  ),
  plain(
    'COUNTER',
    'container_pressure_cpu_stalled_seconds_total',
    'Time in which all threads waited for a CPU, in seconds.',
    (u) => seconds(u.cpuPressure?.full.totalUs),
  ),
  plain(
    'COUNTER',
    'container_pressure_memory_waiting_seconds_total',
    'Time in which some thread waited for memory, in seconds.',
    (u) => seconds(u.memoryPressure?.some.totalUs),
  ),
  plain(
    'COUNTER',
    'container_pressure_memory_stalled_seconds_total',
    'Time in which all threads waited for memory, in seconds.',
    (u) => seconds(u.memoryPressure?.full.totalUs),
  ),
  plain(
    'COUNTER',
    'container_pressure_io_waiting_seconds_total',
    'Time in which some thread waited for a disk, in seconds.',
    (u) => seconds(u.ioPressure?.some.totalUs),
  ),
  plain(
    'COUNTER',
    'container_pressure_io_stalled_seconds_total',
    'Time in which all threads waited for a disk, in seconds.',
    (u) => seconds(u.ioPressure?.full.totalUs),
  ),
  plain('GAUGE', 'container_spec_cpu_period', 'Period of the CPU limit, in microseconds.', (_, { view }) =>
    asked(view, 'cpuPeriod'),
  ),
  plain('GAUGE', 'container_spec_cpu_quota', 'CPU time for a period, in microseconds.', (_, { view }) =>
    asked(view, 'cpuQuota'),
  ),
  plain('GAUGE', 'container_spec_cpu_shares', 'Share of the CPU beside others.', (_, { view }) =>
    asked(view, 'cpuShares'),
  ),
  plain(
    'GAUGE',
    'container_spec_memory_limit_bytes',
    'Memory limit; 0: none.',
    (_, { view }) => asked(view, 'memoryLimitInBytes') ?? 0,
  ),
  plain(
    'GAUGE',
    'container_start_time_seconds',
    'When the container was started, seconds since the epoch.',
    (_, { view }) => Number(view.status().startedAt) / 1e9,
  ),
];

const interfaces = (name: string, help: string, value: (each: InterfaceUsage) => number): Spec<PodUsage> => ({
  name,
  help,
  kind: 'COUNTER',
  labels: ['interface'],
  values: (known) => known.interfaces.map((each) => [value(each), each.name]),
});

const NETWORK: readonly Spec<PodUsage>[] = [
  interfaces('container_network_receive_bytes_total', 'Bytes received.', (i) => i.rxBytes),
  interfaces('container_network_receive_packets_total', 'Packets received.', (i) => i.rxPackets),
  interfaces('container_network_receive_packets_dropped_total', 'Packets dropped on arrival.', (i) => i.rxDropped),
  interfaces('container_network_receive_errors_total', 'Errors on arrival.', (i) => i.rxErrors),
  interfaces('container_network_transmit_bytes_total', 'Bytes sent.', (i) => i.txBytes),
  interfaces('container_network_transmit_packets_total', 'Packets sent.', (i) => i.txPackets),
  interfaces('container_network_transmit_packets_dropped_total', 'Packets dropped on departure.', (i) => i.txDropped),
  interfaces('container_network_transmit_errors_total', 'Errors on departure.', (i) => i.txErrors),
];

export const DESCRIPTORS: readonly MetricDescriptor[] = [...CONTAINER, ...NETWORK].map(({ name, help, labels }) => ({
  name,
  help,
  labelKeys: [...LABELS, ...labels],
}));

export function containerMetrics(view: ContainerView, pod: SandboxView, known: ContainerUsage): ContainerMetrics {
  const { config } = view;
  const labels = [
    view.id,
    config.image?.userSpecifiedImage || config.image?.image || view.imageRef,
    ...podLabels(pod),
    config.metadata?.name ?? '',
  ];
  return { containerId: view.id, metrics: metrics(CONTAINER, { known, view }, labels, nanos(known.at)) };
}

export function networkMetrics(pod: SandboxView, known: PodUsage): Metric[] {
  return metrics(NETWORK, known, [pod.id, '', ...podLabels(pod), POD], nanos(known.at));
}

function podLabels({ config }: SandboxView): readonly string[] {
  return [config.metadata?.namespace ?? '', config.metadata?.name ?? ''];
}

function metrics<Source>(
  specs: readonly Spec<Source>[],
  source: Source,
  labels: string[],
  timestamp: string,
): Metric[] {
  return specs.flatMap(({ name, kind, values }) =>
    values(source).flatMap(([value, ...more]) =>
      value === undefined
        ? []
        : {
            name,
            timestamp,
            metricType: kind,
            labelValues: more.length === 0 ? labels : [...labels, ...more],
            value: { value: Math.floor(value) },
          },
    ),
  );
}

type Asked = 'cpuPeriod' | 'cpuQuota' | 'cpuShares' | 'memoryLimitInBytes';

/** What the kubelet asked for; undefined where it did not, or asked for no limit (-1). */
function asked({ config }: ContainerView, field: Asked): number | undefined {
  const value = Number(config.linux?.resources?.[field] ?? 0);
  return value > 0 ? value : undefined;
}
