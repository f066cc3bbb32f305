/**
 * Which process is a machine's. A pid alone proves nothing, since numbers come round again: a process is known by its pid
 * and its start time, and one whose pid was never recorded by the machine's name on its command line.
 */
import { readdir, readFile } from 'node:fs/promises';
import { hasErrno } from '../../src/base/errors.ts';
import type { InstanceId } from '../../src/base/ids.ts';

export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot, as the kernel prints them. */
  readonly startTime: string;
}

/** The name that QEMU carries in -name, and the wrapper before it in its arguments. */
export function processName(id: InstanceId): string {
  return `guest=infralet-${id}`;
}

/** Identity of a live process; undefined when there is none or it is a zombie. */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  const text = await readProc(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  // The second field is the name in brackets and may hold anything, brackets and blanks included.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const startTime = fields[19];
  if (startTime === undefined || fields[0] === 'Z' || fields[0] === 'X') return undefined;
  return { pid, startTime };
}

export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  return (await identify(identity.pid))?.startTime === identity.startTime;
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

/** Sends a signal unless the process is gone or its number is another's by now. */
export async function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): Promise<void> {
  if (!(await isAlive(identity))) return;
  try {
    process.kill(identity.pid, signal);
  } catch (error) {
    if (!hasErrno(error, 'ESRCH')) throw error;
  }
}

async function readProc(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ESRCH')) return undefined;
    throw error;
  }
}
