/** Huge pages: the pod's kernel has none until somebody reserves them, out of the machine's own memory. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import type { HugePages__Output } from '../gen/infralet/agent/v1/HugePages.ts';

/** Memory that stays for containerd and the agent. */
const KEPT_KILOBYTES = 64 * 1024;

/** Has at least as many of each size as asked for; `directory` is sysfs' list of sizes. What cannot be had is not kept. */
export function reserveHugePages(wanted: readonly HugePages__Output[], directory: string): void {
  for (const { pageBytes, count } of wanted) {
    const kilobytes = Number(pageBytes) / 1024;
    if (!Number.isSafeInteger(kilobytes) || kilobytes <= 0) {
      throw new InfraletError('INVALID_ARGUMENT', `${pageBytes} is no size of pages`);
    }
    const file = join(directory, `hugepages-${kilobytes}kB`, 'nr_hugepages');
    const before = present(file, kilobytes);
    if (before >= count) continue;
    // The kernel would take all that is free before it gives up, and the machine's programs with it.
    const room = before + Math.floor(spareKilobytes() / kilobytes);
    if (room >= count) writeFileSync(file, String(count));
    const after = room >= count ? present(file, kilobytes) : room;
    if (after >= count) continue;
    if (room >= count) writeFileSync(file, String(before));
    throw new InfraletError(
      'RESOURCE_EXHAUSTED',
      `the machine has memory for ${after} of ${count} huge pages of ${kilobytes} KiB`,
    );
  }
}

/** What can be taken without the machine's own programs feeling it. */
function spareKilobytes(): number {
  const available = /^MemAvailable:\s*(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
  return Math.max(0, Number(available ?? 0) - KEPT_KILOBYTES);
}

function present(file: string, kilobytes: number): number {
  try {
    return Number(readFileSync(file, 'utf8'));
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
    throw new InfraletError('FAILED_PRECONDITION', `the machine has no huge pages of ${kilobytes} KiB`);
  }
}
