/** Reads a file or a directory tree of the node as it is: modes, owners, times, symlinks; nothing followed. */
import { createReadStream } from 'node:fs';
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

/**
 * Entries of `root` in an order in which they can be made: parents first, and the kubelet's `..data` link last in its
 * directory, so that whoever reads through it sees the old tree or the new, complete one.
 */
export async function* readTree(root: string, limits: TreeLimits, onSkipped: OnSkipped): AsyncGenerator<GuestFile> {
  const seen = { bytes: 0, files: 0 };
  yield* walk(root, '', limits, seen, onSkipped);
}

async function* walk(
  root: string,
  path: string,
  limits: TreeLimits,
  seen: { bytes: number; files: number },
  onSkipped: OnSkipped,
): AsyncGenerator<GuestFile> {
  const full = join(root, path);
  const stat = await lstat(full);
  seen.files += 1;
  if (stat.isFile()) seen.bytes += stat.size;
  if (seen.files > limits.maxFiles || seen.bytes > limits.maxBytes) {
    throw new InfraletError('RESOURCE_EXHAUSTED', `the mount ${root} is too large to be copied into a machine`, {
      hint: `at most ${limits.maxBytes} bytes in ${limits.maxFiles} files: policy.maxCopyBytes, policy.maxCopyFiles`,
    });
  }
  const facts = { path, mode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid, mtimeMs: Math.round(stat.mtimeMs) };
  if (stat.isSymbolicLink()) {
    yield { ...facts, kind: 'symlink', link: await readlink(full) };
  } else if (stat.isFile()) {
    yield { ...facts, kind: 'file', size: stat.size, content: exactly(full, stat.size) };
  } else if (stat.isDirectory()) {
    yield { ...facts, kind: 'directory' };
    const names = (await readdir(full)).sort((a, b) => Number(a === '..data') - Number(b === '..data'));
    for (const name of names) yield* walk(root, join(path, name), limits, seen, onSkipped);
  } else {
    onSkipped(full, stat.isSocket() ? 'a socket' : stat.isFIFO() ? 'a named pipe' : 'a device');
  }
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
