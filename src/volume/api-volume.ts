/**
 * Volumes that the kubelet writes and exchanges: ConfigMap, Secret, projected, downward API. Their files lie in a
 * directory of their own; `..data` leads to it, and each visible name is a link through `..data`. An update is a new
 * directory and one rename of `..data`, so `..data` tells one version from the next.
 */
import { lstat, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import type { GuestFile } from '../guest/channel.ts';
import { type OnSkipped, readTree, type TreeLimits, TreeReader } from './tree.ts';

const DATA = '..data';
/** Fingerprints of volumes that the kubelet exchanges begin with it. */
export const LINKED = 'link ';

/** Where `..data` leads; undefined for a directory that the kubelet does not exchange. */
async function dataLink(path: string): Promise<string | undefined> {
  try {
    return await readlink(join(path, DATA));
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'EINVAL', 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** Another text whenever the volume has changed. Throws ENOENT when it is gone. */
export async function fingerprint(path: string): Promise<string> {
  const link = await dataLink(path);
  if (link !== undefined) return `${LINKED}${link}`;
  const { ino, size, mtimeNs, mode, uid, gid } = await lstat(path, { bigint: true });
  return `file ${ino} ${size} ${mtimeNs} ${mode} ${uid} ${gid}`;
}

/** What a machine that has this version already can be asked for. */
export async function versionOf(
  path: string,
): Promise<{ readonly current?: string; readonly currentMtimeMs?: number }> {
  // The time first: an exchange after it makes the two differ from what the machine has.
  const { mtimeMs } = await lstat(path);
  const current = await dataLink(path);
  return current === undefined ? {} : { current, currentMtimeMs: Math.round(mtimeMs) };
}

/**
 * One version of the volume, in an order that never shows a mix: its directory, `..data`, then the visible names. Fails
 * with ABORTED when the kubelet exchanges it meanwhile; by then nothing of a half-read directory is linked.
 */
export async function* readApiVolume(
  root: string,
  limits: TreeLimits,
  onSkipped: OnSkipped,
): AsyncGenerator<GuestFile> {
  const version = await dataLink(root);
  if (version === undefined) {
    yield* readTree(root, limits, onSkipped);
    return;
  }
  const reader = new TreeReader(root, limits, onSkipped);
  try {
    yield await reader.top();
    yield* reader.walk(version);
    yield* reader.walk(DATA);
    const names = await readdir(root);
    for (const name of names) if (!name.startsWith('..')) yield* reader.walk(name);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) throw exchanged(root, error);
    throw error;
  }
  if ((await dataLink(root)) !== version) throw exchanged(root);
}

function exchanged(root: string, cause?: unknown): InfraletError {
  return new InfraletError('ABORTED', `${root} changed while it was copied`, { cause, hint: 'the next try will do' });
}
