/** Memory of processes, from /proc and their cgroups. */
import { readdir, readFile } from 'node:fs/promises';
import { hasErrno } from '../../src/base/errors.ts';

export interface Memory {
  /** Bytes of all pages in memory. */
  readonly resident: number;
  /** The same with shared pages counted in parts. */
  readonly proportional: number;
}

/** Zero for a process that has ended. */
export async function memoryOf(pid: number): Promise<Memory> {
  const text = await readIfThere(`/proc/${pid}/smaps_rollup`);
  return { resident: kilobytes(text, 'Rss'), proportional: kilobytes(text, 'Pss') };
}

export async function memoryOfAll(pids: readonly number[]): Promise<Memory> {
  const each = await Promise.all(pids.map(memoryOf));
  return {
    resident: each.reduce((sum, { resident }) => sum + resident, 0),
    proportional: each.reduce((sum, { proportional }) => sum + proportional, 0),
  };
}

/** The most that a process ever had resident, bytes. */
export async function peakResident(pid: number): Promise<number> {
  return kilobytes(await readIfThere(`/proc/${pid}/status`), 'VmHWM');
}

/** The most that a cgroup such as `infralet/1234` ever held, page cache included; undefined where it is not counted. */
export async function cgroupPeak(name: string): Promise<number | undefined> {
  const unified = await readIfThere(`/sys/fs/cgroup/${name}/memory.peak`);
  const text = unified || (await readIfThere(`/sys/fs/cgroup/memory/${name}/memory.max_usage_in_bytes`));
  return text === '' ? undefined : Number(text);
}

/** A process and all that it started, found by their parents. */
export async function withDescendants(root: number): Promise<readonly number[]> {
  const children = new Map<number, number[]>();
  for (const pid of await pids()) {
    // "pid (name) state parent …"; the name may hold anything.
    const parent = Number(/^.*\) \S (\d+)/s.exec(await readIfThere(`/proc/${pid}/stat`))?.[1] ?? 0);
    children.set(parent, [...(children.get(parent) ?? []), pid]);
  }
  const found: number[] = [];
  const visit = (pid: number): void => {
    found.push(pid);
    for (const child of children.get(pid) ?? []) visit(child);
  };
  visit(root);
  return found;
}

/** Processes whose command line has `word` as one of its arguments. */
export async function withArgument(word: string): Promise<readonly number[]> {
  const all = await Promise.all(
    (await pids()).map(async (pid) => ({ pid, words: (await readIfThere(`/proc/${pid}/cmdline`)).split('\0') })),
  );
  return all.filter(({ words }) => words.includes(word)).map(({ pid }) => pid);
}

async function pids(): Promise<readonly number[]> {
  return (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
}

function kilobytes(text: string, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1024;
}

async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ESRCH')) return '';
    throw error;
  }
}
