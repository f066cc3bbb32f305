/** `ReadLog`: the bytes of a log from an offset on, over its files, as the keeper writes them. */
import { closeSync, openSync, read, statSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { systemClock } from '../base/time.ts';
import { LOG_CHUNK_BYTES } from '../rpc/agent-protocol.ts';
import { Changes } from './changes.ts';
import { ENDED, type Logs, type Piece } from './logs.ts';
import { LIMITS } from './options.ts';

export interface LogChunk {
  readonly offset: number;
  readonly data: Buffer;
  readonly ended: boolean;
}

const readAt = promisify(read);
const NOTHING = Buffer.alloc(0);

/** When bytes at the offset are gone already, it begins at the first byte that is there. */
export async function* readLog(
  logs: Logs,
  name: string,
  offset: number,
  signal: AbortSignal,
): AsyncGenerator<LogChunk> {
  const directory = logs.path(name);
  logs.pieces(name);
  logs.ensureKept(name);
  using file = new OpenPiece();
  using watch = new Watch(directory);
  let at = offset;
  let told = false;
  let gathered = 0;
  while (!signal.aborted) {
    // Asked before the reading: what was written before it is read before it is told.
    const ended = statSync(join(directory, ENDED), { throwIfNoEntry: false }) !== undefined;
    const data = await file.read(at);
    if (data.length > 0) {
      watch[Symbol.dispose]();
      yield { offset: at, data, ended: false };
      at += data.length;
      gathered += data.length;
      told = false;
      continue;
    }
    const moved = file.move(logs.pieces(name), at);
    if (moved !== undefined) {
      at = moved;
    } else if (ended && !told) {
      yield { offset: at, data: NOTHING, ended: true };
      told = true;
    } else if (!watch.begin()) {
      await watch.end(signal);
      // Each message costs the same whatever is in it: who writes much gets fewer of them.
      const chatty = gathered >= LIMITS.logChatty;
      await systemClock.sleep(chatty ? LIMITS.logGatherChattyMs : LIMITS.logGatherMs, signal);
      gathered = 0;
    }
  }
}

/** Watches a directory from one look at it to the next change: each of a chatty container's lines would tell of itself. */
class Watch implements Disposable {
  readonly #directory: string;
  #changes: Changes | undefined;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** True when it has only just begun: something may have come before, so look once more. */
  begin(): boolean {
    if (this.#changes) return false;
    this.#changes = new Changes(this.#directory);
    return true;
  }

  async end(signal: AbortSignal): Promise<void> {
    await this.#changes?.after(0, signal);
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#changes?.[Symbol.dispose]();
    this.#changes = undefined;
  }
}

/** The file being read. */
class OpenPiece implements Disposable {
  #fd: number | undefined;
  #start = -1;

  async read(at: number): Promise<Buffer> {
    if (this.#fd === undefined) return NOTHING;
    const buffer = Buffer.allocUnsafe(LOG_CHUNK_BYTES);
    const { bytesRead } = await readAt(this.#fd, buffer, 0, buffer.length, at - this.#start);
    return buffer.subarray(0, bytesRead);
  }

  /** Goes over to the file that holds the offset; where to read then, undefined when it is at the end of all. */
  move(pieces: readonly Piece[], at: number): number | undefined {
    const next = pieces.findLast(({ start }) => start <= at) ?? pieces[0];
    if (!next || next.start === this.#start) return undefined;
    const size = statSync(next.path, { throwIfNoEntry: false })?.size;
    if (size === undefined) return undefined;
    if (at > next.start + size) {
      throw new InfraletError('OUT_OF_RANGE', `the log has ${next.start + size} bytes, not ${at}`);
    }
    try {
      const fd = openSync(next.path, 'r');
      this[Symbol.dispose]();
      this.#fd = fd;
      this.#start = next.start;
    } catch (error) {
      // Trimmed between the look and the open.
      if (!hasErrno(error, 'ENOENT')) throw error;
      return undefined;
    }
    return Math.max(at, next.start);
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}
