/** `SignalContainer`: a container's own stop signal, which containerd 1.7 takes from the image only. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import type { AgentOptions } from './options.ts';

const MAX_SIGNAL = 64;

export function signalContainer(
  { containerId, signal }: { readonly containerId: string; readonly signal: number },
  { bundlesDir }: Pick<AgentOptions, 'bundlesDir'>,
): void {
  if (!/^[0-9a-f]{64}$/.test(containerId))
    throw new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(containerId.slice(0, 80))} is no container id`);
  if (signal < 1 || signal > MAX_SIGNAL) throw new InfraletError('INVALID_ARGUMENT', `${signal} is no signal`);
  try {
    const pid = Number(readFileSync(join(bundlesDir, containerId, 'init.pid'), 'utf8'));
    if (!Number.isSafeInteger(pid) || pid <= 1)
      throw new InfraletError('DATA_LOSS', `the pid file of container ${containerId} holds no pid`);
    process.kill(pid, signal);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT', 'ESRCH')) throw error;
    throw new InfraletError('NOT_FOUND', `container ${containerId} does not run`, { cause: error });
  }
}
