/** `PutFiles` and `RemoveFiles`: messages to tree entries, every number checked. */
import { join } from 'node:path';
import type { ServerReadableStream } from '@grpc/grpc-js';
import { hasErrno, InfraletError } from '../base/errors.ts';
import type { FileChunk__Output } from '../gen/infralet/agent/v1/FileChunk.ts';
import type { FileEntry__Output } from '../gen/infralet/agent/v1/FileEntry.ts';
import type { PutFilesResponse } from '../gen/infralet/agent/v1/PutFilesResponse.ts';
import type { PutTarget__Output } from '../gen/infralet/agent/v1/PutTarget.ts';
import type { RemoveFilesRequest__Output } from '../gen/infralet/agent/v1/RemoveFilesRequest.ts';
import { components, Directory } from './directory.ts';
import { notePassed } from './memory.ts';
import { type AgentOptions, LIMITS, type RootName } from './options.ts';
import { type Manner, type TreeEntry, TreeWriter } from './tree.ts';

export type Roots = AgentOptions['roots'];

/** Takes the whole stream; resolves with the target's path. What was written of a broken `replace` is removed. */
export async function putFiles(
  call: ServerReadableStream<FileChunk__Output, PutFilesResponse>,
  roots: Roots,
): Promise<string> {
  let writer: TreeWriter | undefined;
  try {
    for await (const chunk of call as AsyncIterable<FileChunk__Output>) {
      if (chunk.target) {
        if (writer) throw new InfraletError('INVALID_ARGUMENT', 'there can be one target only');
        const { path, replace, sync, keep, current } = chunk.target;
        const root = rootPath(roots, chunk.target.root);
        const manner = mannerOf({ replace, sync, keep });
        if (sync && current !== '' && isCurrent(root, chunk.target)) return join(root, path);
        writer = new TreeWriter({ root, path, manner });
      } else if (!writer) {
        throw new InfraletError('INVALID_ARGUMENT', 'the first message must be the target');
      } else {
        for (const each of chunk.batch ? chunk.batch.chunks : [chunk]) {
          if (each.end) return writer.commit();
          put(writer, each);
        }
      }
    }
    // A cancelled call ends its stream like a complete one.
    throw new InfraletError('CANCELLED', 'the stream ended before the tree was complete');
  } finally {
    writer?.[Symbol.dispose]();
  }
}

function put(writer: TreeWriter, chunk: FileChunk__Output): void {
  if (chunk.entry) {
    writer.begin(toEntry(chunk.entry));
  } else if (chunk.data) {
    writer.data(chunk.data);
    notePassed(chunk.data.length);
  } else {
    throw new InfraletError('INVALID_ARGUMENT', 'a message is out of place or of a kind that this agent does not know');
  }
}

function mannerOf(flags: Readonly<Record<Exclude<Manner, 'add'>, boolean>>): Manner {
  const chosen = (['replace', 'sync', 'keep'] as const).filter((each) => flags[each]);
  if (chosen.length > 1) throw new InfraletError('INVALID_ARGUMENT', `${chosen.join(' and ')} exclude each other`);
  return chosen[0] ?? 'add';
}

/** Whether a `sync` was brought to its end: the link tells the version, the directory's time is set last. */
function isCurrent(root: string, { path, current, currentMtimeMs }: PutTarget__Output): boolean {
  try {
    using directory = Directory.walk(root, components(path), false);
    return directory.readlink(DATA_LINK) === current && Math.round(directory.mtimeMs) === Number(currentMtimeMs);
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'EINVAL')) return false;
    throw error;
  }
}

export function removeFiles(request: RemoveFilesRequest__Output, roots: Roots): void {
  const root = rootPath(roots, request.root);
  for (const path of request.paths) {
    const parts = components(path);
    const name = parts.at(-1);
    if (name === undefined) throw new InfraletError('INVALID_ARGUMENT', 'a root itself is not removed');
    using parent = walkTo(root, parts.slice(0, -1));
    parent?.remove(name);
  }
}

/** The directory, or undefined when it is gone already. */
function walkTo(root: string, parts: readonly string[]): Directory | undefined {
  try {
    return Directory.walk(root, parts, false);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

export function rootPath(roots: Roots, root: string): string {
  const path = Object.hasOwn(roots, root) ? roots[root as RootName] : undefined;
  if (path === undefined) throw new InfraletError('INVALID_ARGUMENT', `there is no root ${root.slice(0, 64)}`);
  return path;
}

const DATA_LINK = '..data';
const KINDS = { FILE: 'file', DIRECTORY: 'directory', SYMLINK: 'symlink' } as const;
/** 2^32 - 1 means "leave it" to chown(2). */
const MAX_ID = 0xffff_fffe;
/** The year 275760, where Date ends. */
const MAX_TIME = 8.64e15;

function toEntry(entry: FileEntry__Output): TreeEntry {
  if (entry.kind === 'KIND_UNSPECIFIED') throw bad(entry, 'its kind is missing');
  const kind = KINDS[entry.kind];
  const size = Number(entry.size);
  const mtimeMs = Number(entry.mtimeMs);
  if (!Number.isSafeInteger(size) || size < 0 || (kind !== 'file' && size > 0)) throw bad(entry, 'its size is wrong');
  if (!Number.isSafeInteger(mtimeMs) || Math.abs(mtimeMs) > MAX_TIME) throw bad(entry, 'its time is wrong');
  if (entry.uid > MAX_ID || entry.gid > MAX_ID) throw bad(entry, 'its owner is wrong');
  if (entry.mode > 0o7777) throw bad(entry, 'its mode has more than permission bits');
  const linkBytes = Buffer.byteLength(entry.link);
  if (kind === 'symlink' && (linkBytes === 0 || linkBytes >= LIMITS.pathBytes || entry.link.includes('\0'))) {
    throw bad(entry, 'its link is wrong');
  }
  return { path: entry.path, kind, mode: entry.mode, uid: entry.uid, gid: entry.gid, mtimeMs, size, link: entry.link };
}

function bad(entry: FileEntry__Output, why: string): InfraletError {
  return new InfraletError('INVALID_ARGUMENT', `the entry ${JSON.stringify(entry.path.slice(0, 200))}: ${why}`);
}
