/**
 * `ReadFile`: bytes of one file from an offset. With follow it waits for the file to appear, goes on as it grows, and
 * ends when the path leads to another file (rotated) or to none: the reader decides where to go on.
 */
import { closeSync, constants, fstatSync, read } from 'node:fs';
import { promisify } from 'node:util';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { CHUNK_BYTES } from '../rpc/agent-protocol.ts';
import { Changes } from './changes.ts';
import { components, Directory } from './directory.ts';

export interface ReadPlan {
  /** Absolute path of the root. */
  readonly root: string;
  readonly path: string;
  readonly offset: number;
  readonly follow: boolean;
  /** Bytes; 0: no limit. */
  readonly limit: number;
}

const readAt = promisify(read);

/** Yields chunks of at most CHUNK_BYTES; the consumer's pace is the reader's pace. */
export async function* readFile(
  plan: ReadPlan,
  signal: AbortSignal,
): AsyncGenerator<{ readonly offset: number; readonly data: Buffer }> {
  const parts = components(plan.path);
  const name = parts.at(-1);
  if (name === undefined) throw new InfraletError('INVALID_ARGUMENT', 'the path names no file');
  const parents = parts.slice(0, -1);
  const fd = await opened(plan, parents, name, signal);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new InfraletError('FAILED_PRECONDITION', `${plan.path} is not a regular file`);
    if (plan.offset > stat.size) {
      throw new InfraletError('OUT_OF_RANGE', `${plan.path} has ${stat.size} bytes, not ${plan.offset}`);
    }
    using changes = plan.follow ? new Changes(`/proc/self/fd/${fd}`) : undefined;
    let offset = plan.offset;
    let left = plan.limit > 0 ? plan.limit : Number.POSITIVE_INFINITY;
    while (left > 0 && !signal.aborted) {
      const seen = changes?.count ?? 0;
      // Asked before reading: what is written before the rotation is read before the end.
      const last = changes !== undefined && !leadsTo(plan.root, parents, name, stat.ino);
      const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, left));
      const { bytesRead } = await readAt(fd, buffer, 0, buffer.length, offset);
      if (bytesRead > 0) {
        yield { offset, data: buffer.subarray(0, bytesRead) };
        offset += bytesRead;
        left -= bytesRead;
      } else if (!changes || last) {
        return;
      } else if (fstatSync(fd).size < offset) {
        throw new InfraletError('OUT_OF_RANGE', `${plan.path} was truncated below ${offset}`);
      } else {
        await changes.after(seen, signal);
      }
    }
  } finally {
    closeSync(fd);
  }
}

async function opened(plan: ReadPlan, parents: readonly string[], name: string, signal: AbortSignal): Promise<number> {
  for (;;) {
    try {
      using directory = Directory.walk(plan.root, parents, false);
      return directory.open(name, constants.O_RDONLY);
    } catch (error) {
      if (!hasErrno(error, 'ENOENT') || !plan.follow) throw error;
    }
    signal.throwIfAborted();
    using above = deepest(plan.root, parents);
    using changes = new Changes(`/proc/self/fd/${above.fd}`);
    // It may have appeared between the look and the watch.
    if (above.stat(name)) continue;
    await changes.after(0, signal);
  }
}

/** The innermost directory of the path that exists. */
function deepest(root: string, parents: readonly string[]): Directory {
  for (let depth = parents.length; depth > 0; depth -= 1) {
    try {
      return Directory.walk(root, parents.slice(0, depth), false);
    } catch (error) {
      if (!hasErrno(error, 'ENOENT')) throw error;
    }
  }
  return Directory.root(root);
}

function leadsTo(root: string, parents: readonly string[], name: string, inode: number): boolean {
  try {
    using directory = Directory.walk(root, parents, false);
    return directory.stat(name)?.ino === inode;
  } catch {
    return false;
  }
}
