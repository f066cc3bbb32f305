/** `infralet template …` and `infralet ps --templates`: the machines that others are cloned from. */
import type { AdminClient } from '../admin/client.ts';
import { systemClock } from '../base/time.ts';
import type { Template__Output } from '../gen/infralet/admin/v1/Template.ts';
import { formatAge, formatBytes, formatTable } from './format.ts';
import { type Io, line } from './io.ts';

const TIMEOUT_MS = 10_000;
/** A template boots once, on a busy host at that. */
const BUILD_MS = 300_000;

export async function templateList(admin: AdminClient, io: Io, options: { readonly json: boolean }): Promise<void> {
  print(await admin.templates({ signal: io.signal, timeoutMs: TIMEOUT_MS }), io, options);
}

export async function templateBuild(admin: AdminClient, io: Io, options: { readonly json: boolean }): Promise<void> {
  print([await admin.buildTemplate({ signal: io.signal, timeoutMs: BUILD_MS })], io, options);
}

export async function templateRemove(admin: AdminClient, ids: readonly string[], io: Io): Promise<void> {
  for (const id of ids) await admin.removeTemplate(id, { signal: io.signal, timeoutMs: TIMEOUT_MS });
}

function print(templates: readonly Template__Output[], io: Io, { json }: { readonly json: boolean }): void {
  const rows = templates.map(({ id, state, sinceMs, ...numbers }) => ({
    id,
    state,
    since: Number(sinceMs),
    cpuMillis: Number(numbers.cpuMillis),
    memoryLimitBytes: Number(numbers.memoryLimitBytes),
    memoryBytes: Number(numbers.memoryBytes),
    diskBytes: Number(numbers.diskBytes),
    clones: Number(numbers.clones),
  }));
  if (json) {
    line(io.out, JSON.stringify(rows, undefined, 2));
    return;
  }
  const cells = rows.map((row) => [
    row.id,
    row.state,
    formatAge(systemClock.now() - row.since),
    String(row.cpuMillis / 1000),
    `up to ${formatBytes(row.memoryLimitBytes)}`,
    formatBytes(row.memoryBytes),
    formatBytes(row.diskBytes),
    String(row.clones),
  ]);
  line(io.out, formatTable(['TEMPLATE', 'STATE', 'AGE', 'CPU', 'MACHINES', 'MEMORY', 'DISK', 'CLONES'], cells));
}
