/** The logs of all containers: one follower each while it can have more to say, rotation, and the end before an exit is told. */
import { join } from 'node:path';
import { errorMessage } from '../base/errors.ts';
import type { ContainerId } from '../base/ids.ts';
import { KeyedLock } from '../base/keyed-lock.ts';
import type { Clock } from '../base/time.ts';
import type { Config } from '../config/schema.ts';
import type { AgentChannel, CallOptions } from '../guest/channel.ts';
import { logDisk } from '../log/disk.ts';
import { type FollowerDeps, type LogEnd, LogFollower, type LogTarget } from '../log/follower.ts';
import { type LogPosition, parsePosition } from '../log/position.ts';
import { LogWriter } from '../log/writer.ts';
import type { Sessions } from '../sandbox/session.ts';
import type { SandboxStore } from '../sandbox/store.ts';
import type { Journal } from '../state/journal.ts';
import type { Logger } from '../telemetry/log.ts';
import { guestLogName } from './guest-config.ts';
import type { ContainerEntry, ContainerStore } from './store.ts';

/** Of what may wait in the guest, this part at once is acknowledged; the agent keeps it in as many files. */
const ACK_PART = 16;
/**
 * Room for what a killed container leaves in pipes, on top of the bound: some 256 KiB, and a line of two bytes takes more
 * than twenty times that as a line of a log.
 */
const LAST_WORDS = 16 * 1024 * 1024;

export interface ContainerLogsDeps {
  readonly journal: Pick<Journal, 'log' | 'putLog'>;
  readonly store: ContainerStore;
  readonly sandboxes: SandboxStore;
  readonly sessions: Sessions;
  readonly config: Config['containerLog'];
  /** Told of log bytes that have come to the node. */
  readonly onLogBytes?: ((count: number) => void) | undefined;
  /** A log has ended, so its container has, too. */
  readonly onEnded?: (id: ContainerId) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export class ContainerLogs implements AsyncDisposable {
  readonly #deps: ContainerLogsDeps;
  readonly #followerDeps: FollowerDeps;
  readonly #followers = new Map<ContainerId, LogFollower>();
  /** One writer per file: opening, rotating and ending of one log come one after the other. */
  readonly #lock = new KeyedLock<ContainerId>();
  readonly #stop = new AbortController();
  readonly #background = new Set<Promise<void>>();

  constructor(deps: ContainerLogsDeps) {
    this.#deps = deps;
    const { config, clock } = deps;
    this.#followerDeps = {
      disk: logDisk,
      clock,
      log: deps.log.child({ component: 'log' }),
      fullRetryMs: config.fullRetry,
      onBytes: deps.onLogBytes,
      ackBytes: Math.ceil(config.guestBuffer / ACK_PART),
    };
  }

  /** Absolute path on the node; empty when the container has no log. */
  path({ record, config }: Pick<ContainerEntry, 'record' | 'config'>): string {
    const directory = this.#deps.sandboxes.get(record.sandboxId)?.config.logDirectory ?? '';
    return directory === '' || config.logPath === '' ? '' : join(directory, config.logPath);
  }

  /** Before the guest's containerd is told of the container, and again with its id there before it is started. */
  async prepare(id: ContainerId, guestId: string, channel: AgentChannel, options: CallOptions): Promise<void> {
    await channel.makeLog(guestLogName(id), this.#deps.config.guestBuffer, guestId, options);
  }

  /** Makes the node's file, so that it is there when the container is said to have started. */
  async begin(id: ContainerId): Promise<void> {
    const entry = this.#deps.store.find(id);
    const target = entry && this.#target(entry);
    if (target) await this.#exclusive(id, () => this.#open(target));
  }

  async #open({ position, path }: LogTarget): Promise<void> {
    await using _writer = await LogWriter.open(this.#followerDeps, position, path);
  }

  /** The container is being killed: what it has said must not keep it, though the node does not follow. */
  async release(id: ContainerId, channel: AgentChannel, options: CallOptions): Promise<void> {
    await channel.makeLog(guestLogName(id), this.#deps.config.guestBuffer + LAST_WORDS, '', options);
  }

  /** Follows over the present channel, where there is one and the log is not complete. */
  follow(id: ContainerId): void {
    this.#later(this.#exclusive(id, async () => void (await this.#ensure(id))));
  }

  async #ensure(id: ContainerId): Promise<LogFollower | undefined> {
    const entry = this.#deps.store.find(id);
    const channel = entry && this.#deps.sessions.get(entry.record.sandboxId);
    const target = entry && this.#target(entry);
    if (!channel || !target || entry.record.logDone || entry.record.guestId === '') return undefined;
    const present = this.#followers.get(id);
    if (present?.channel === channel) return present;
    await present?.[Symbol.asyncDispose]();
    const follower = new LogFollower(this.#followerDeps, target, channel);
    this.#followers.set(id, follower);
    return follower;
  }

  /**
   * For a container that has ended. `complete`: all of its log is on the node. `waiting`: not yet, and nothing comes; it goes
   * on when it can. `stopped`: the channel broke; ask again over the next one.
   */
  async end(id: ContainerId, signal: AbortSignal): Promise<LogEnd> {
    const entry = this.#deps.store.find(id);
    if (!entry || this.path(entry) === '') return 'complete';
    const follower = await this.#exclusive(id, () => this.#ensure(id));
    if (!follower) return 'stopped';
    const end = await follower.end(this.#deps.config.endWait, signal);
    if (end === 'complete') await this.forget(id);
    if (end === 'waiting') {
      this.#deps.log.warn('the end of a log is missing for now', { containerId: id, path: this.path(entry) });
      this.#later(this.#endLater(id, follower));
    }
    return end;
  }

  async #endLater(id: ContainerId, follower: LogFollower): Promise<void> {
    let end: LogEnd = 'waiting';
    while (end === 'waiting') end = await follower.end(this.#deps.config.endWait, this.#stop.signal);
    if (end === 'stopped' || this.#deps.store.find(id)?.record.state !== 'CONTAINER_EXITED') return;
    await this.forget(id);
    this.#deps.store.update(id, { logDone: true });
  }

  /** The kubelet has renamed the file: a new one is made where it was, and the log goes on there. */
  async reopen(entry: ContainerEntry): Promise<void> {
    const { id } = entry.record;
    const target = this.#target(entry);
    if (!target) return;
    await this.#exclusive(id, async () => {
      const follower = this.#followers.get(id);
      this.#followers.delete(id);
      await follower?.[Symbol.asyncDispose]();
      try {
        await this.#open(target);
      } finally {
        await this.#ensure(id);
      }
    });
  }

  #target(entry: ContainerEntry): LogTarget | undefined {
    const { id, sandboxId } = entry.record;
    const { journal } = this.#deps;
    const path = this.path(entry);
    if (path === '') return undefined;
    return {
      name: guestLogName(id),
      path,
      onEnded: () => this.#deps.onEnded?.(id),
      position: {
        get: () => this.#position(id),
        // A late write for a container that is gone would stay for ever.
        put: (position) => {
          if (this.#deps.store.find(id)) journal.putLog(id, sandboxId, position);
        },
      },
    };
  }

  #position(id: ContainerId): LogPosition | undefined {
    const row = this.#deps.journal.log(id);
    if (row === undefined) return undefined;
    try {
      return parsePosition(row);
    } catch (error) {
      this.#deps.log.error('the position of a log cannot be read', { containerId: id, reason: errorMessage(error) });
      return undefined;
    }
  }

  /** Ends the follower; what has arrived is in the file. */
  async forget(id: ContainerId): Promise<void> {
    await this.#exclusive(id, async () => {
      const follower = this.#followers.get(id);
      this.#followers.delete(id);
      await follower?.[Symbol.asyncDispose]();
    });
  }

  async #exclusive<T>(id: ContainerId, work: () => Promise<T>): Promise<T> {
    using _held = await this.#lock.acquire(id, this.#stop.signal);
    return await work();
  }

  #later(work: Promise<void>): void {
    const done = work
      .catch((error: unknown) => {
        if (!this.#stop.signal.aborted) this.#deps.log.warn('following a log failed', { reason: errorMessage(error) });
      })
      .finally(() => this.#background.delete(done));
    this.#background.add(done);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#background);
    await Promise.all([...this.#followers.values()].map((follower) => follower[Symbol.asyncDispose]()));
    this.#followers.clear();
  }
}
