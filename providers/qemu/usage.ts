/** What one machine takes of the node. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno } from '../../src/base/errors.ts';

/** Proportional set size in bytes: pages shared by several machines count in parts. 0 when the process is gone. */
export async function proportionalMemory(pid: number): Promise<number> {
  try {
    const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
    return Number(/^Pss:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) * 1024;
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ESRCH')) return 0;
    throw error;
  }
}

/** Bytes that the files of a flat directory take on disk; holes do not count. */
export async function diskBlocks(dir: string): Promise<number> {
  let total = 0;
  for (const name of await readdir(dir)) {
    try {
      total += (await stat(join(dir, name))).blocks * 512;
    } catch (error) {
      // Files come and go while we look: records are replaced, sockets removed.
      if (!hasErrno(error, 'ENOENT')) throw error;
    }
  }
  return total;
}

/** Bytes that one file takes on disk. */
export async function fileBlocks(path: string): Promise<number> {
  return (await stat(path)).blocks * 512;
}
