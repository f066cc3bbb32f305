/** What happens when a container has ended, before anyone is told: its log is completed, its last message brought home. */
import { realpath, writeFile } from 'node:fs/promises';
import { errorMessage } from '../base/errors.ts';
import { withTimeout } from '../base/time.ts';
import type { AgentChannel } from '../guest/channel.ts';
import { copyLog, type LogTarget } from '../log/follower.ts';
import type { Logger } from '../telemetry/log.ts';
import { volumeName } from '../volume/mounts.ts';
import type { ContainerEntry } from './store.ts';

/** Annotation with which the kubelet names the termination message's path in the container. */
const MESSAGE_PATH = 'io.kubernetes.container.terminationMessagePath';
/** The kubelet reads 4 KiB of it; more would only let a guest fill the node's disk. */
const MESSAGE_BYTES = 64 * 1024;
const LAST_LOG_MS = 60_000;

/** True when all of the log is on the node. */
export async function completeLog(
  target: LogTarget,
  channel: AgentChannel,
  log: Logger,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    using limit = withTimeout(signal, LAST_LOG_MS, 'fetching the end of a log');
    await copyLog(target, channel, false, limit);
    return true;
  } catch (error) {
    log.warn('the end of a log is missing for now', { path: target.nodePath, reason: errorMessage(error) });
    return false;
  }
}

/** Brings the termination message into the node's file. */
export async function bringMessage(
  { config }: ContainerEntry,
  channel: AgentChannel,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  const inside = config.annotations[MESSAGE_PATH];
  const mount = inside === undefined ? undefined : config.mounts.find(({ containerPath }) => containerPath === inside);
  if (!mount) return;
  try {
    const parts: Buffer[] = [];
    const options = { offset: 0, follow: false, limit: MESSAGE_BYTES, signal };
    // By the real path, as it was carried in: the kubelet's directory may be a symlink.
    const path = volumeName(await realpath(mount.hostPath));
    for await (const { data } of channel.readFile('ROOT_VOLUMES', path, options)) parts.push(data);
    const message = Buffer.concat(parts).subarray(0, MESSAGE_BYTES);
    if (message.length > 0) await writeFile(mount.hostPath, message);
  } catch (error) {
    log.warn('the termination message could not be fetched', { path: mount.hostPath, reason: errorMessage(error) });
  }
}
