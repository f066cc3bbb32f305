/**
 * emptyDir: scratch space of a pod. It lives in the machine; the kubelet's directory on the node stays empty and only
 * tells what kind it is: a plain directory, or a file system of its own that the kubelet has mounted there.
 */
import { lstat } from 'node:fs/promises';
import { InfraletError } from '../base/errors.ts';
import type { AgentChannel, CallOptions, GuestFile } from '../guest/channel.ts';
import { mountOf, readMountTable, sizeOption } from './mount-table.ts';

/** Makes it in the machine, once; what containers have written stays. Resolves with its path there. */
export async function carryEmptyDir(
  hostPath: string,
  name: string,
  channel: AgentChannel,
  options: CallOptions,
): Promise<string> {
  const mount = mountOf(await readMountTable(), hostPath);
  const { mode, uid, gid } = await lstat(hostPath);
  const owner = { mode: mode & 0o7777, uid, gid };
  const target = { root: 'ROOT_SCRATCH', path: name } as const;
  const own = mount?.point === hostPath ? mount : undefined;
  if (own?.type === 'tmpfs') {
    return await channel.mount(
      { ...target, memory: { ...owner, size: sizeOption(own.options.get('size')) ?? 0 } },
      options,
    );
  }
  if (own?.type === 'hugetlbfs') {
    const pageSize = sizeOption(own.options.get('pagesize'));
    if (pageSize === undefined) {
      throw new InfraletError('FAILED_PRECONDITION', `the mount of ${hostPath} does not tell its page size`);
    }
    return await channel.mount({ ...target, hugePages: { ...owner, pageSize } }, options);
  }
  return await makeDirectory(hostPath, name, channel, options);
}

/** A directory in the machine with mode and owner of one on the node; one that exists there stays as it is. */
export async function makeDirectory(
  hostPath: string,
  path: string,
  channel: AgentChannel,
  options: CallOptions,
): Promise<string> {
  const { mode, uid, gid, mtimeMs } = await lstat(hostPath);
  const files = (async function* (): AsyncGenerator<GuestFile> {
    yield { path: '', kind: 'directory', mode: mode & 0o7777, uid, gid, mtimeMs };
  })();
  return await channel.putFiles({ root: 'ROOT_SCRATCH', path, replace: false, keep: true }, files, options);
}
