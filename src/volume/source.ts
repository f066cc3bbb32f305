/** What a mount's source is on the node, and what becomes of it. */
import { lstat, mkdir, readdir, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno } from '../base/errors.ts';
import type { Config } from '../config/schema.ts';
import type { Mount__Output } from '../gen/runtime/v1/Mount.ts';
import { classifyMount, volumeOfSubPath } from './classify.ts';

/** How a mount gets into the machine. */
export type Way =
  /** Copied, and brought up to date when the kubelet changes it. */
  | { readonly kind: 'live'; readonly entry: 'directory' | 'file' }
  | { readonly kind: 'emptyDir' }
  /** A part of an emptyDir, whose real path is given. */
  | { readonly kind: 'emptyDirPart'; readonly emptyDir: string }
  /** Used as it is on the node. */
  | { readonly kind: 'share' }
  /** Copied when the first container asks for it; `again` with each container. */
  | { readonly kind: 'copy'; readonly again: boolean };

export interface Source {
  /** As the kubelet names it. */
  readonly hostPath: string;
  /** The same without symlinks. */
  readonly path: string;
  readonly way: Way;
  readonly directory: boolean;
}

/** Looks at the node; a source that is missing is made, as other runtimes do. */
export async function lookAt({ hostPath }: Mount__Output, policy: Config['policy']): Promise<Source> {
  await make(hostPath);
  return await lookAgain(hostPath, policy);
}

/** As `lookAt`, for a mount that a container has already. Throws ENOENT when it is gone. */
export async function lookAgain(hostPath: string, policy: Config['policy']): Promise<Source> {
  const path = await realpath(hostPath);
  const directory = (await stat(path)).isDirectory();
  return { hostPath, path, directory, way: await wayOf(hostPath, policy) };
}

async function wayOf(hostPath: string, policy: Config['policy']): Promise<Way> {
  const kind = classifyMount(hostPath);
  switch (kind) {
    case 'api':
      return { kind: 'live', entry: 'directory' };
    case 'hosts':
      return { kind: 'live', entry: 'file' };
    case 'emptyDir':
      return { kind: 'emptyDir' };
    case 'kubeletFile':
      return { kind: 'copy', again: false };
    case 'plugin':
      return { kind: 'share' };
    case 'hostPath':
      return policy.hostPath === 'share' ? { kind: 'share' } : { kind: 'copy', again: false };
    case 'subPath': {
      const volume = await volumeOf(hostPath);
      // A hostPath has no directory among the pod's volumes.
      if (volume === undefined) return policy.hostPath === 'share' ? { kind: 'share' } : { kind: 'copy', again: true };
      const whole = classifyMount(volume);
      if (whole === 'emptyDir') return { kind: 'emptyDirPart', emptyDir: await realpath(volume) };
      return whole === 'api' ? { kind: 'copy', again: true } : { kind: 'share' };
    }
  }
}

async function volumeOf(hostPath: string): Promise<string | undefined> {
  const found = volumeOfSubPath(hostPath);
  if (!found) return undefined;
  const plugins = found.plugin === undefined ? await names(found.volumes) : [found.plugin];
  for (const plugin of plugins) {
    if ((await names(join(found.volumes, plugin))).includes(found.name)) return join(found.volumes, plugin, found.name);
  }
  return undefined;
}

async function names(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}

async function make(hostPath: string): Promise<void> {
  try {
    await lstat(hostPath);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
    await mkdir(hostPath, { recursive: true });
  }
}
