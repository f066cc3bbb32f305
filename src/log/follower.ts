/**
 * Carries one container's log from its machine to the file that the kubelet named, byte for byte, as it is written.
 * The offset in the guest's file is `base` + the size of the node's file, so a restart at any instruction goes on at the
 * right byte without a journal of its own.
 */
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { AgentChannel } from '../guest/channel.ts';
import type { Logger } from '../telemetry/log.ts';

export interface LogTarget {
  /** Path below the agent's log root. */
  readonly guestPath: string;
  /** Absolute path on the node. */
  readonly nodePath: string;
  /** Bytes of the guest's file that went to earlier (rotated) files of the node. */
  readonly base: number;
  /** Told of bytes that are on the node. */
  readonly onBytes?: ((count: number) => void) | undefined;
}

export class LogFollower implements AsyncDisposable {
  readonly #stop = new AbortController();
  readonly #work: Promise<void>;

  constructor(target: LogTarget, channel: AgentChannel, log: Logger) {
    this.#work = copyLog(target, channel, true, this.#stop.signal).catch((error: unknown) => {
      if (this.#stop.signal.aborted) return;
      // The channel broke, or the disk is full: the next session starts a new follower at the right byte.
      log.warn('log stream ended', { path: target.nodePath, reason: errorMessage(error) });
    });
  }

  /** Stops following; what has arrived is in the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#work;
  }
}

/** Copies what the guest has beyond the node's file; with `follow`, goes on until the signal fires. */
export async function copyLog(
  target: LogTarget,
  channel: AgentChannel,
  follow: boolean,
  signal: AbortSignal,
): Promise<void> {
  await mkdir(dirname(target.nodePath), { recursive: true });
  const file = await open(target.nodePath, 'a', 0o640);
  try {
    let offset = target.base + (await file.stat()).size;
    for await (const chunk of channel.readFile('ROOT_LOGS', target.guestPath, { offset, follow, signal })) {
      if (chunk.offset !== offset) {
        throw new InfraletError('DATA_LOSS', `the guest sent log bytes of offset ${chunk.offset} instead of ${offset}`);
      }
      await append(file, chunk.data);
      offset += chunk.data.length;
      target.onBytes?.(chunk.data.length);
    }
  } finally {
    await file.close();
  }
}

async function append(file: FileHandle, data: Uint8Array): Promise<void> {
  for (let written = 0; written < data.length; ) {
    written += (await file.write(data, written)).bytesWritten;
  }
}
