/** A container's log in a machine that exists in memory only: what it holds, what it has let go of, who waits for more. */
import { EventEmitter, once } from 'node:events';
import type { LogBytes } from '../../src/guest/channel.ts';

const NOTHING = Buffer.alloc(0);

export class FakeLog {
  /** Offset of the first byte that is still there. */
  first = 0;
  ended = false;
  bound = 0;
  #bytes = NOTHING;
  readonly #news = new EventEmitter().setMaxListeners(0);

  get end(): number {
    return this.first + this.#bytes.length;
  }

  /** False when it does not fit: the writer has to wait. */
  write(text: string): boolean {
    const data = Buffer.from(text);
    if (this.#bytes.length + data.length > this.bound) return false;
    this.#bytes = Buffer.concat([this.#bytes, data]);
    this.#news.emit('news');
    return true;
  }

  close(): void {
    this.ended = true;
    this.#news.emit('news');
  }

  trim(offset: number): void {
    if (offset <= this.first) return;
    this.#bytes = this.#bytes.subarray(offset - this.first);
    this.first = offset;
  }

  /** In pieces of at most `most` bytes. */
  async *read(from: number, signal: AbortSignal, most = 64 * 1024): AsyncGenerator<LogBytes> {
    let at = Math.max(from, this.first);
    let told = false;
    while (!signal.aborted) {
      const data = this.#bytes.subarray(at - this.first, at - this.first + most);
      if (data.length > 0) {
        yield { offset: at, data, ended: false };
        at += data.length;
        told = false;
      } else if (this.ended && !told) {
        yield { offset: at, data: NOTHING, ended: true };
        told = true;
      } else {
        await once(this.#news, 'news', { signal }).catch(() => undefined);
      }
    }
  }
}
