/** Reads a file or a directory tree of the node as it is: modes, owners, times, symlinks; nothing followed. */
import { createReadStream, type Stats } from 'node:fs';
import { lstat, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import type { GuestFile } from '../guest/channel.ts';

export interface TreeLimits {
  readonly maxBytes: number;
  readonly maxFiles: number;
}

/** Called for what cannot be carried into a machine (sockets, devices, pipes). */
export type OnSkipped = (path: string, why: string) => void;

/** Entries of `root` in an order in which they can be made: parents first. */
export async function* readTree(root: string, limits: TreeLimits, onSkipped: OnSkipped): AsyncGenerator<GuestFile> {
  yield* new TreeReader(root, limits, onSkipped).walk('');
}

/** Reads parts of one tree under common limits. */
export class TreeReader {
  readonly #root: string;
  readonly #limits: TreeLimits;
  readonly #onSkipped: OnSkipped;
  #bytes = 0;
  #files = 0;

  constructor(root: string, limits: TreeLimits, onSkipped: OnSkipped) {
    this.#root = root;
    this.#limits = limits;
    this.#onSkipped = onSkipped;
  }

  /** The root directory alone. */
  async top(): Promise<GuestFile> {
    return { ...facts('', await lstat(this.#root)), kind: 'directory' };
  }

  /** The entry at `path` and, for a directory, everything below it. */
  async *walk(path: string): AsyncGenerator<GuestFile> {
    const full = join(this.#root, path);
    const stat = await lstat(full);
    this.#count(stat);
    if (stat.isSymbolicLink()) {
      yield { ...facts(path, stat), kind: 'symlink', link: await readlink(full) };
    } else if (stat.isFile()) {
      yield { ...facts(path, stat), kind: 'file', size: stat.size, content: exactly(full, stat.size) };
    } else if (stat.isDirectory()) {
      yield { ...facts(path, stat), kind: 'directory' };
      for (const name of await readdir(full)) yield* this.walk(join(path, name));
    } else {
      this.#onSkipped(full, stat.isSocket() ? 'a socket' : stat.isFIFO() ? 'a named pipe' : 'a device');
    }
  }

  #count(stat: Stats): void {
    this.#files += 1;
    if (stat.isFile()) this.#bytes += stat.size;
    const { maxBytes, maxFiles } = this.#limits;
    if (this.#files <= maxFiles && this.#bytes <= maxBytes) return;
    throw new InfraletError(
      'RESOURCE_EXHAUSTED',
      `the mount ${this.#root} is too large to be copied into a machine: more than ${maxBytes} bytes or ${maxFiles} files`,
      { hint: 'policy.maxCopyBytes, policy.maxCopyFiles' },
    );
  }
}

function facts(path: string, stat: Stats) {
  return { path, mode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid, mtimeMs: Math.round(stat.mtimeMs) };
}

/** A file's first `size` bytes: one that grows while it is read is cut, one that shrinks fails. */
async function* exactly(path: string, size: number): AsyncGenerator<Uint8Array> {
  if (size === 0) return;
  let left = size;
  for await (const chunk of createReadStream(path, { end: size - 1, highWaterMark: 256 * 1024 })) {
    if (!(chunk instanceof Uint8Array)) continue;
    left -= chunk.length;
    yield chunk;
  }
  if (left !== 0)
    throw new InfraletError('ABORTED', `${path} changed while it was copied`, { hint: 'the next try will do' });
}
