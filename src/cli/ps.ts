/** `infralet ps`: sandboxes, their machines, states, ages and sizes. */
import type { CallLimits } from '../admin/unary.ts';
import { InfraletError } from '../base/errors.ts';
import { printable } from '../base/text.ts';
import { systemClock } from '../base/time.ts';
import type { CriClient } from './cri-client.ts';
import { formatAge, formatBytes, formatTable } from './format.ts';
import { type Io, line } from './io.ts';
import { sandboxInfo } from './sandbox-info.ts';

interface Row {
  readonly id: string;
  readonly name: string;
  readonly namespace: string;
  readonly attempt: number;
  readonly ready: boolean;
  readonly state: string;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
  readonly ip: string;
  readonly instanceId: string;
  readonly containers: { readonly running: number; readonly all: number };
  readonly machine: {
    readonly cpuMillis: number;
    readonly memoryBytes: number;
    readonly diskBytes: number;
    readonly usage: { readonly memoryBytes: number; readonly diskBytes: number } | undefined;
  };
  readonly lastError: string;
}

const TIMEOUT_MS = 10_000;

export async function ps(
  cri: CriClient,
  io: Io,
  options: { readonly json: boolean; readonly now?: number },
): Promise<void> {
  const rows = await collect(cri, { signal: io.signal, timeoutMs: TIMEOUT_MS });
  if (options.json) {
    line(io.out, JSON.stringify(rows, undefined, 2));
    return;
  }
  const now = options.now ?? systemClock.now();
  const header = ['ID', 'POD', 'NAMESPACE', 'STATE', 'AGE', 'IP', 'CONTAINERS', 'CPU', 'MEMORY', 'DISK', 'MACHINE'];
  line(
    io.out,
    formatTable(
      header,
      rows.map((row) => cells(row, now)),
    ),
  );
}

async function collect(cri: CriClient, limits: CallLimits): Promise<readonly Row[]> {
  const [{ items }, { containers }] = await Promise.all([
    cri.call('ListPodSandbox', {}, limits),
    cri.call('ListContainers', {}, limits),
  ]);
  const rows = items.map(async (item): Promise<Row | undefined> => {
    try {
      const info = await sandboxInfo(cri, item.id, limits);
      const own = containers.filter(({ podSandboxId }) => podSandboxId === item.id);
      return {
        id: item.id,
        name: item.metadata?.name ?? '',
        namespace: item.metadata?.namespace ?? '',
        attempt: item.metadata?.attempt ?? 0,
        ready: item.state === 'SANDBOX_READY',
        state: info.state,
        createdAt: Number(BigInt(item.createdAt) / 1_000_000n),
        ip: info.podIp,
        instanceId: info.instanceId,
        containers: { running: own.filter(({ state }) => state === 'CONTAINER_RUNNING').length, all: own.length },
        machine: { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, usage: undefined, ...info.machine },
        lastError: info.lastError,
      };
    } catch (error) {
      // Removed between the two calls.
      if (error instanceof InfraletError && error.code === 'NOT_FOUND') return undefined;
      throw error;
    }
  });
  const found = await Promise.all(rows);
  return found.filter((row) => row !== undefined).toSorted((a, b) => b.createdAt - a.createdAt);
}

function cells(row: Row, now: number): readonly string[] {
  const { machine } = row;
  const used = (part: number | undefined, whole: number): string =>
    part === undefined ? formatBytes(whole) : `${formatBytes(part)} of ${formatBytes(whole)}`;
  return [
    row.id.slice(0, 13),
    printable(row.name),
    printable(row.namespace),
    row.state,
    formatAge(now - row.createdAt),
    row.ip === '' ? '-' : row.ip,
    `${row.containers.running}/${row.containers.all}`,
    `${machine.cpuMillis / 1000}`,
    used(machine.usage?.memoryBytes, machine.memoryBytes),
    used(machine.usage?.diskBytes, machine.diskBytes),
    row.instanceId === '' ? '-' : row.instanceId,
  ];
}
