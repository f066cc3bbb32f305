/**
 * Live shares: a directory of the node that a pod uses as it is, by NFS through the tunnel. One server per sandbox and
 * directory, so that a guest can speak to no other than its own; it outlives the daemon as the machine does.
 */
import { createHash } from 'node:crypto';
import { readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errorMessage, hasErrno } from '../../base/errors.ts';
import type { SandboxId } from '../../base/ids.ts';
import { KeyedLock } from '../../base/keyed-lock.ts';
import type { ProcessIdentity } from '../../base/process-identity.ts';
import type { AgentChannel } from '../../guest/channel.ts';
import type { Logger } from '../../telemetry/log.ts';
import { EXPORT } from './jail.ts';
import { connectServer, runningServer, startServer, stopServer } from './process.ts';
import { SharePrograms } from './programs.ts';

/** The guest's kernel loads NFS and asks the server over the tunnel; emulated machines take seconds. */
const MOUNT_MS = 90_000;
/** Connections of one guest at once; its kernel opens one per share. */
const MAX_CONNECTIONS = 64;

export interface Share {
  readonly sandboxId: SandboxId;
  /** Real path on the node. */
  readonly source: string;
  readonly readonly: boolean;
}

export interface SharesOptions {
  /** State of the servers; below it they are found again. */
  readonly directory: string;
  /** The servers' programs, as the guest image brings them. */
  readonly programs: string;
  readonly log: Logger;
}

export class Shares implements AsyncDisposable {
  readonly #directory: string;
  readonly #programs: SharePrograms;
  readonly #log: Logger;
  readonly #lock = new KeyedLock<string>();
  readonly #stop = new AbortController();
  /** Channels on which connections for a share are awaited already. */
  readonly #served = new WeakMap<AgentChannel, Set<string>>();
  readonly #connections = new Map<SandboxId, number>();

  constructor(options: SharesOptions) {
    this.#directory = options.directory;
    this.#programs = new SharePrograms(options.programs, join(options.directory, 'programs'));
    this.#log = options.log;
  }

  /** Mounts the share in the machine, once; resolves with its path there. */
  async mount(share: Share, channel: AgentChannel, signal: AbortSignal): Promise<string> {
    await this.#run(share, signal);
    this.#serve(share, channel);
    return await channel.mount(
      { root: 'ROOT_VOLUMES', path: shareName(share), share: { export: EXPORT, readonly: share.readonly } },
      { signal, timeoutMs: MOUNT_MS },
    );
  }

  /** With a new session: the machine's kernel is waiting to go on. */
  async resume(share: Share, channel: AgentChannel, signal: AbortSignal): Promise<void> {
    await this.#run(share, signal);
    this.#serve(share, channel);
  }

  async #run(share: Share, signal: AbortSignal): Promise<ProcessIdentity> {
    const directory = this.#place(share);
    using _one = await this.#lock.acquire(directory, signal);
    const running = await runningServer(directory);
    if (running) return running;
    const tree = await this.#programs.ready(signal);
    const { source, readonly } = share;
    const server = await startServer(directory, { tree, source, readonly }, signal);
    this.#log.info('a directory of the node is shared with a machine', { ...share });
    return server;
  }

  #serve(share: Share, channel: AgentChannel): void {
    const name = shareName(share);
    const served = this.#served.get(channel) ?? new Set<string>();
    this.#served.set(channel, served);
    if (served.has(name)) return;
    served.add(name);
    const onConnection = (guest: Duplex): void => void this.#connect(share, guest);
    channel
      .serveIncoming(`share/${name}`, onConnection, this.#stop.signal)
      // The channel was closed; the next one serves it again.
      .catch((error: unknown) => this.#log.debug('a share is not served', { ...share, reason: errorMessage(error) }));
  }

  async #connect(share: Share, guest: Duplex): Promise<void> {
    const open = this.#connections.get(share.sandboxId) ?? 0;
    if (open >= MAX_CONNECTIONS) {
      guest.destroy();
      return;
    }
    this.#connections.set(share.sandboxId, open + 1);
    try {
      const socket = await connectServer(await this.#run(share, this.#stop.signal));
      await Promise.all([pipeline(guest, socket, { signal: this.#stop.signal }), pipeline(socket, guest)]);
    } catch (error) {
      this.#log.debug('a connection of a share ended', { ...share, reason: errorMessage(error) });
    } finally {
      guest.destroy();
      const left = (this.#connections.get(share.sandboxId) ?? 1) - 1;
      if (left === 0) this.#connections.delete(share.sandboxId);
      else this.#connections.set(share.sandboxId, left);
    }
  }

  /** The machine is gone. */
  async forget(sandboxId: SandboxId): Promise<void> {
    await this.#remove(join(this.#directory, sandboxId));
    await this.#tidy();
  }

  /** Ends what belongs to no sandbox; for the start of the daemon. */
  async sweep(isKnown: (id: string) => boolean): Promise<void> {
    for (const name of await names(this.#directory)) {
      if (/^[0-9a-f]{32}$/.test(name) && !isKnown(name)) await this.#remove(join(this.#directory, name));
    }
    await this.#tidy();
  }

  async #remove(ofSandbox: string): Promise<void> {
    for (const name of await names(ofSandbox)) {
      using _one = await this.#lock.acquire(join(ofSandbox, name), new AbortController().signal);
      await stopServer(join(ofSandbox, name));
    }
    await rmdir(ofSandbox).catch(() => undefined);
  }

  async #tidy(): Promise<void> {
    const left = await names(this.#directory);
    if (left.length === 1 && left[0] === 'programs') await this.#programs.remove(new AbortController().signal);
  }

  #place(share: Share): string {
    return join(this.#directory, share.sandboxId, shareName(share));
  }

  /** Connections end, servers go on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
  }
}

function shareName({ source, readonly }: Share): string {
  return createHash('sha256').update(`${source}\0${readonly}`).digest('hex').slice(0, 32);
}

async function names(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}
