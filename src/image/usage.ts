/** What a directory tree takes of its file system: the figures of `du` and `du --inodes`. */
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno } from '../base/errors.ts';

export interface Usage {
  readonly bytes: number;
  readonly inodes: number;
}

/** Bytes of the blocks a file occupies are counted in units of 512, whatever the file system's block size (stat(2)). */
const BLOCK = 512;

/** Counts `path` and all below; what disappears meanwhile does not count. */
export async function diskUsage(path: string, signal: AbortSignal): Promise<Usage> {
  signal.throwIfAborted();
  try {
    const info = await lstat(path);
    const own = { bytes: info.blocks * BLOCK, inodes: 1 };
    if (!info.isDirectory()) return own;
    let total: Usage = own;
    for (const name of await readdir(path)) {
      const below = await diskUsage(join(path, name), signal);
      total = { bytes: total.bytes + below.bytes, inodes: total.inodes + below.inodes };
    }
    return total;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return { bytes: 0, inodes: 0 };
    throw error;
  }
}
