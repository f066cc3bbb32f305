/**
 * Carries one container's log from its machine to the file that the kubelet named, byte for byte, as it is written. It may
 * be cut off at any instruction: the next one goes on at the right byte (position.ts).
 */
import { backoffMs } from '../base/backoff.ts';
import { errorMessage } from '../base/errors.ts';
import type { AgentChannel } from '../guest/channel.ts';
import { LogWriter, type PositionKeeper, type WriterDeps } from './writer.ts';

export interface LogTarget {
  /** Name of the log in the machine. */
  readonly name: string;
  /** Absolute path on the node. */
  readonly path: string;
  readonly position: PositionKeeper;
  /** containerd has closed the log and all of it is on the node: the container has ended, or is about to say so. */
  readonly onEnded?: () => void;
}

export interface FollowerDeps extends WriterDeps {
  /** Bytes of a log after which the guest is told to forget them; less than may wait there. */
  readonly ackBytes: number;
  /** Told of bytes that are on the node. */
  readonly onBytes?: ((count: number) => void) | undefined;
}

/** Telling the guest to forget: quick, and not needed for anything that follows. */
const TRIM_MS = 30_000;
/** containerd cuts lines after 16 KiB; what is longer is no line of a log. Bytes. */
const LONGEST_LINE = 256 * 1024;
const RETRY = { initialMs: 200, maxMs: 10_000, factor: 2, jitter: 0.2 };

/** What became of a log whose container has ended. `waiting`: nothing came for a while; it goes on. */
export type LogEnd = 'complete' | 'waiting' | 'stopped';

export class LogFollower implements AsyncDisposable {
  readonly channel: AgentChannel;
  readonly #deps: FollowerDeps;
  readonly #target: LogTarget;
  readonly #stop = new AbortController();
  readonly #work: Promise<void>;
  #ended = false;
  /** Settled and renewed whenever something changes. */
  #news = Promise.withResolvers<void>();

  constructor(deps: FollowerDeps, target: LogTarget, channel: AgentChannel) {
    this.#deps = deps;
    this.#target = target;
    this.channel = channel;
    this.#work = this.#run();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    for (let failures = 0; !signal.aborted; ) {
      try {
        await this.#copy(() => {
          failures = 0;
        });
      } catch (error) {
        if (signal.aborted) return;
        this.#deps.log.debug('a log stream broke', { path: this.#target.path, reason: errorMessage(error) });
      }
      failures += 1;
      await this.#deps.clock.sleep(backoffMs(RETRY, failures), signal).catch(() => undefined);
    }
  }

  async #copy(onBytes: () => void): Promise<void> {
    const { signal } = this.#stop;
    const { name, path, position } = this.#target;
    await using writer = await LogWriter.open(this.#deps, position, path);
    let rest: Buffer = Buffer.alloc(0);
    for await (const { offset, data, ended } of this.channel.readLog(name, writer.offset, signal)) {
      if (offset > writer.offset + rest.length) {
        rest = Buffer.alloc(0);
        writer.skip(offset);
      }
      // Whole lines, so that none is cut in two when the kubelet renames the file; the guest has the rest still.
      const all = rest.length === 0 ? data : Buffer.concat([rest, data]);
      const cut = ended || all.length > LONGEST_LINE ? all.length : all.lastIndexOf('\n') + 1;
      rest = all.subarray(cut);
      await writer.append(all.subarray(0, cut), signal);
      this.#deps.onBytes?.(cut);
      this.#tell(ended);
      if (ended) this.#target.onEnded?.();
      if (writer.offset - writer.acked >= this.#deps.ackBytes) await this.#ack(writer);
      onBytes();
    }
  }

  async #ack(writer: LogWriter): Promise<void> {
    const offset = await writer.ack();
    const options = { signal: this.#stop.signal, timeoutMs: TRIM_MS };
    await this.channel.trimLog(this.#target.name, offset, options);
  }

  #tell(ended: boolean): void {
    this.#ended = ended;
    this.#news.resolve();
    this.#news = Promise.withResolvers();
  }

  /** For a container that has ended: waits for the end of its log, `idleMs` at most from each byte to the next. */
  async end(idleMs: number, signal: AbortSignal): Promise<LogEnd> {
    while (!this.#ended) {
      const stop = new AbortController();
      const either = AbortSignal.any([signal, this.#stop.signal, stop.signal]);
      const idle = this.#deps.clock.sleep(idleMs, either).then(
        () => 'waiting' as const,
        () => 'stopped' as const,
      );
      const result = await Promise.race([idle, this.#news.promise]);
      stop.abort();
      signal.throwIfAborted();
      if (result !== undefined) return result;
    }
    return 'complete';
  }

  /** Stops following; what has arrived is in the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#work;
  }
}
