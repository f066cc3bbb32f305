/** `infralet describe ID`: one sandbox with its timeline, last error and the end of its machine's console. */
import type { AdminClient } from '../admin/client.ts';
import { printable } from '../base/text.ts';
import { systemClock } from '../base/time.ts';
import { formatAge, formatBytes, formatTable, indent } from './format.ts';
import { type Io, line } from './io.ts';
import { formatTimeline, parseSandboxInfo, type SandboxInfo } from './sandbox-info.ts';

const TIMEOUT_MS = 30_000;

export async function describe(
  admin: Pick<AdminClient, 'describe'>,
  id: string,
  io: Io,
  options: { readonly json: boolean; readonly now?: number },
): Promise<void> {
  const raw = await admin.describe(id, { signal: io.signal, timeoutMs: TIMEOUT_MS });
  if (options.json) {
    line(io.out, JSON.stringify(raw, undefined, 2));
    return;
  }
  const info = parseSandboxInfo(raw);
  const now = options.now ?? systemClock.now();
  const facts: readonly (readonly [string, string])[] = [
    ['Sandbox', info.id],
    ['Pod', `${info.podNamespace}/${info.podName}`],
    ['UID', info.podUid],
    ['Attempt', String(info.attempt)],
    ['State', info.ready ? info.state : `${info.state} (${notReady(info)})`],
    ...(info.reason === '' ? [] : [['Reason', info.reason] as const]),
    ['Age', formatAge(now - info.createdAt)],
    ['IP', info.podIp === '' ? '-' : info.podIp],
    ['Machine', info.instanceId === '' ? '-' : info.instanceId],
    ...machineFacts(info),
  ];
  const width = Math.max(...facts.map(([name]) => name.length));
  for (const [name, value] of facts) line(io.out, `${`${name}:`.padEnd(width + 2)}${printable(value)}`);
  section(io, 'Timeline', info.timeline.length === 0 ? '' : formatTimeline(info.timeline));
  section(io, 'Containers', info.containers.length === 0 ? '' : containerTable(info, now));
  section(io, 'Last error', printable(info.lastError));
  section(io, 'Console (its end; written by the guest)', consoleText(info.consoleTail));
}

function notReady({ wanted, listed, state }: SandboxInfo): string {
  if (wanted === 'removed') return 'being removed';
  // The CRI lists it only once it was ready.
  return listed || state === 'failed' ? 'not ready' : 'being made';
}

function containerTable({ containers }: SandboxInfo, now: number): string {
  const ended = ({ exitCode, reason }: SandboxInfo['containers'][number]): string =>
    ` (${[String(exitCode), printable(reason)].filter((part) => part !== '').join(', ')})`;
  return formatTable(
    ['ID', 'NAME', 'ATTEMPT', 'STATE', 'AGE', 'IMAGE'],
    containers.map((container) => [
      container.id.slice(0, 13),
      printable(container.name),
      String(container.attempt),
      `${container.state}${container.state === 'exited' ? ended(container) : ''}`,
      formatAge(now - container.createdAt),
      printable(container.image),
    ]),
  );
}

function machineFacts({ machine }: SandboxInfo): readonly (readonly [string, string])[] {
  if (!machine) return [];
  const { usage } = machine;
  return [
    ['CPU', `${machine.cpuMillis / 1000}`],
    [
      'Memory',
      `${formatBytes(machine.memoryBytes)}${usage ? `, ${formatBytes(usage.memoryBytes)} used on this node` : ''}`,
    ],
    ['Disk', `${formatBytes(machine.diskBytes)}${usage ? `, ${formatBytes(usage.diskBytes)} used on this node` : ''}`],
  ];
}

/** Providers drop control characters from consoles; what is left of colour codes is only noise. */
function consoleText(tail: string): string {
  return printable(tail)
    .replaceAll(/\[\d*(;\d+)*m/g, '')
    .trimEnd();
}

function section(io: Io, title: string, text: string): void {
  line(io.out);
  line(io.out, `${title}:`);
  line(io.out, text === '' ? '  none' : indent(text));
}
