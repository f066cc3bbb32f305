/** `infralet describe ID`: one sandbox with its timeline, last error and the end of its machine's console. */
import type { AdminClient } from '../admin/client.ts';
import type { CallLimits } from '../admin/unary.ts';
import { InfraletError } from '../base/errors.ts';
import { printable } from '../base/text.ts';
import { systemClock } from '../base/time.ts';
import type { CriClient } from './cri-client.ts';
import { formatAge, formatBytes, formatTable, indent } from './format.ts';
import { type Io, line } from './io.ts';
import { formatTimeline, parseSandboxInfo, type SandboxInfo } from './sandbox-info.ts';

const TIMEOUT_MS = 30_000;

export async function describe(
  clients: { readonly cri: CriClient; readonly admin: AdminClient },
  id: string,
  io: Io,
  options: { readonly json: boolean; readonly now?: number },
): Promise<void> {
  const limits: CallLimits = { signal: io.signal, timeoutMs: TIMEOUT_MS };
  const raw = await clients.admin.describe(id, limits);
  if (options.json) {
    line(io.out, JSON.stringify(raw, undefined, 2));
    return;
  }
  const { status } = await clients.cri.call('PodSandboxStatus', { podSandboxId: id }, limits);
  if (!status) throw new InfraletError('INTERNAL', 'the daemon gave no status of the sandbox');
  const { containers } = await clients.cri.call('ListContainers', { filter: { podSandboxId: status.id } }, limits);
  const info = parseSandboxInfo(raw);
  const now = options.now ?? systemClock.now();
  const age = (createdAt: string): string => formatAge(now - Number(BigInt(createdAt) / 1_000_000n));
  const facts: readonly (readonly [string, string])[] = [
    ['Sandbox', status.id],
    ['Pod', `${status.metadata?.namespace ?? ''}/${status.metadata?.name ?? ''}`],
    ['UID', status.metadata?.uid ?? ''],
    ['Attempt', String(status.metadata?.attempt ?? 0)],
    ['State', `${info.state} (${status.state === 'SANDBOX_READY' ? 'ready' : 'not ready'})`],
    ['Age', age(status.createdAt)],
    ['IP', info.podIp === '' ? '-' : info.podIp],
    ['Machine', info.instanceId === '' ? '-' : info.instanceId],
    ...machineFacts(info),
  ];
  const width = Math.max(...facts.map(([name]) => name.length));
  for (const [name, value] of facts) line(io.out, `${`${name}:`.padEnd(width + 2)}${printable(value)}`);
  section(io, 'Timeline', info.timeline.length === 0 ? '' : formatTimeline(info.timeline));
  section(
    io,
    'Containers',
    containers.length === 0
      ? ''
      : formatTable(
          ['ID', 'NAME', 'STATE', 'AGE', 'IMAGE'],
          containers.map((container) => [
            container.id.slice(0, 13),
            printable(container.metadata?.name ?? ''),
            container.state.replace('CONTAINER_', '').toLowerCase(),
            age(container.createdAt),
            printable(container.image?.userSpecifiedImage || container.imageRef),
          ]),
        ),
  );
  section(io, 'Last error', printable(info.lastError));
  section(io, 'Console (its end; written by the guest)', consoleText(info.consoleTail));
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
