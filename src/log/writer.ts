/** Writes one container's log to the node's file, which the kubelet may have renamed since; waits when the disk is full. */
import { hasErrno } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { LogDisk, LogFile } from './disk.ts';
import { type LogPosition, settle } from './position.ts';

/** Where one log's position is kept; `put` returns when it is durable. */
export interface PositionKeeper {
  get(): LogPosition | undefined;
  put(position: LogPosition): void;
}

export interface WriterDeps {
  readonly disk: LogDisk;
  readonly clock: Clock;
  readonly log: Logger;
  /** Milliseconds between two tries when the disk is full. */
  readonly fullRetryMs: number;
}

export class LogWriter implements AsyncDisposable {
  readonly #deps: WriterDeps;
  readonly #keeper: PositionKeeper;
  readonly #path: string;
  readonly #file: LogFile;
  #position: LogPosition;
  #offset: number;

  private constructor(
    deps: WriterDeps,
    keeper: PositionKeeper,
    path: string,
    file: LogFile,
    size: number,
    position: LogPosition,
  ) {
    this.#deps = deps;
    this.#keeper = keeper;
    this.#path = path;
    this.#file = file;
    this.#position = position;
    this.#offset = position.base + size;
  }

  /** Opens the file that the path leads to, made when missing, and notes in the journal where in the log it begins. */
  static async open(deps: WriterDeps, keeper: PositionKeeper, path: string): Promise<LogWriter> {
    const file = await deps.disk.open(path);
    try {
      const size = await file.size();
      const before = keeper.get();
      const renamed = before !== undefined && before.file !== file.file;
      const earlier = renamed ? await deps.disk.earlier(path, before.file) : undefined;
      const position = settle(before, { file: file.file, size }, earlier);
      if (position !== before) keeper.put(position);
      if (renamed && earlier === undefined) {
        deps.log.warn('a log file is gone; what was not on the disk for good is written again', { path });
      }
      return new LogWriter(deps, keeper, path, file, size, position);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Offset of the next byte. */
  get offset(): number {
    return this.#offset;
  }

  get acked(): number {
    return this.#position.acked;
  }

  /** All of it, unless the signal fires while the disk is full: then the file says how much. */
  async append(data: Uint8Array, signal: AbortSignal): Promise<void> {
    let full = false;
    for (let rest = data; rest.length > 0; ) {
      try {
        const written = await this.#file.append(rest);
        rest = rest.subarray(written);
        this.#offset += written;
        if (full) this.#deps.log.info('the disk has room again, the log goes on', { path: this.#path });
        full = false;
      } catch (error) {
        if (!hasErrno(error, 'ENOSPC', 'EDQUOT')) throw error;
        if (!full) {
          this.#deps.log.error('the disk is full: the log waits, and so will the container', {
            path: this.#path,
            hint: 'make room on the file system of the log directory; nothing is lost',
          });
        }
        full = true;
        await this.#deps.clock.sleep(this.#deps.fullRetryMs, signal);
      }
    }
  }

  /** Goes on at a later offset: the guest has nothing before it any more. */
  skip(offset: number): void {
    this.#deps.log.error('a part of a log is lost', { path: this.#path, bytes: offset - this.#offset });
    this.#put({ ...this.#position, base: this.#position.base + offset - this.#offset });
    this.#offset = offset;
  }

  /** Makes durable what was written; afterwards the guest may forget it. */
  async ack(): Promise<number> {
    const { offset } = this;
    await this.#file.sync();
    this.#put({ ...this.#position, acked: offset });
    return offset;
  }

  #put(position: LogPosition): void {
    this.#keeper.put(position);
    this.#position = position;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}
