/**
 * Which process is a machine's. A pid alone proves nothing, since numbers come round again: a process is known by its pid
 * and its start time, and one whose pid was never recorded by the machine's name on its command line.
 */
import { readdir } from 'node:fs/promises';
import type { InstanceId } from '../../src/base/ids.ts';
import { identify, type ProcessIdentity, readProc } from '../../src/base/process-identity.ts';

/** The name that QEMU carries in -name, and the wrapper before it in its arguments. */
export function processName(id: InstanceId): string {
  return `guest=infralet-${id}`;
}

/** All live processes that carry the machine's name: one, or the wrapper of a launch that was cut short. */
export async function findByName(id: InstanceId): Promise<readonly ProcessIdentity[]> {
  const name = processName(id);
  const pids = (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid) => {
      const words = (await readProc(`/proc/${pid}/cmdline`))?.split('\0');
      return words?.includes(name) ? await identify(pid) : undefined;
    }),
  );
  return found.filter((identity) => identity !== undefined);
}
