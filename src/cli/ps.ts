/** `infralet ps`: all sandboxes, also those being made: machines, states, ages and sizes. */
import type { AdminClient } from '../admin/client.ts';
import { printable } from '../base/text.ts';
import { systemClock } from '../base/time.ts';
import { formatAge, formatBytes, formatTable } from './format.ts';
import { type Io, line } from './io.ts';
import { type ListedSandbox, parseListedSandbox } from './sandbox-info.ts';

interface Row {
  readonly id: string;
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
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
    /** Null where there is no machine (yet), or the provider cannot tell. */
    readonly usage: { readonly memoryBytes: number; readonly diskBytes: number } | null;
  };
  readonly lastError: string;
}

const TIMEOUT_MS = 10_000;
/** Longest error in a table; `infralet describe` gives the whole. */
const ERROR_WIDTH = 100;

export async function ps(
  admin: Pick<AdminClient, 'list'>,
  io: Io,
  options: { readonly json: boolean; readonly now?: number },
): Promise<void> {
  const listed = await admin.list({ signal: io.signal, timeoutMs: TIMEOUT_MS });
  const rows = listed.map((each) => toRow(parseListedSandbox(each)));
  if (options.json) {
    line(io.out, JSON.stringify(rows, undefined, 2));
    return;
  }
  const now = options.now ?? systemClock.now();
  const header = ['ID', 'POD', 'NAMESPACE', 'STATE', 'AGE', 'IP', 'CONTAINERS', 'CPU', 'MEMORY', 'DISK', 'MACHINE'];
  const errors = rows.map(errorText);
  const withErrors = errors.some((text) => text !== '');
  line(
    io.out,
    formatTable(
      withErrors ? [...header, 'LAST ERROR'] : header,
      rows.map((row, index) => [...cells(row, now), ...(withErrors ? [errors[index] ?? ''] : [])]),
    ),
  );
}

function toRow(info: ListedSandbox): Row {
  const { cpuMillis = 0, memoryBytes = 0, diskBytes = 0, usage = null } = info.machine ?? {};
  return {
    id: info.id,
    name: info.podName,
    namespace: info.podNamespace,
    uid: info.podUid,
    attempt: info.attempt,
    ready: info.ready,
    state: info.state,
    createdAt: info.createdAt,
    ip: info.podIp,
    instanceId: info.instanceId,
    containers: info.containers,
    machine: { cpuMillis, memoryBytes, diskBytes, usage },
    lastError: info.lastError,
  };
}

/** In one line. What once went wrong with a sandbox that is ready by now is for `infralet describe`. */
function errorText(row: Row): string {
  if (row.ready) return '';
  const text = printable(row.lastError).replaceAll(/\s+/g, ' ').trim();
  return text.length > ERROR_WIDTH ? `${text.slice(0, ERROR_WIDTH - 1)}…` : text;
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
