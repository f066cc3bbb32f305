/** What happens when a container has ended, before anyone is told: its last message is brought home. */
import { realpath, writeFile } from 'node:fs/promises';
import { errorMessage } from '../base/errors.ts';
import type { AgentChannel } from '../guest/channel.ts';
import type { Logger } from '../telemetry/log.ts';
import { volumeName } from '../volume/mounts.ts';
import type { ContainerEntry } from './store.ts';

/** Annotation with which the kubelet names the termination message's path in the container. */
const MESSAGE_PATH = 'io.kubernetes.container.terminationMessagePath';
/** The kubelet reads 4 KiB of it; more would only let a guest fill the node's disk. */
const MESSAGE_BYTES = 64 * 1024;

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
    // By the real path, as it was carried in: the kubelet's directory may be a symlink.
    const path = volumeName(await realpath(mount.hostPath));
    for await (const data of channel.readFile('ROOT_VOLUMES', path, MESSAGE_BYTES, signal)) parts.push(data);
    const message = Buffer.concat(parts);
    if (message.length > 0) await writeFile(mount.hostPath, message);
  } catch (error) {
    log.warn('the termination message could not be fetched', { path: mount.hostPath, reason: errorMessage(error) });
  }
}
