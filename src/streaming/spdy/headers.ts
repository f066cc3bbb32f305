/** Header blocks on their way out: one zlib stream for the life of a connection, flushed after each block. */
import { constants, createDeflate, type Deflate } from 'node:zlib';
import { counted, SPDY_DICTIONARY } from './dictionary.ts';

export class HeaderCompressor implements Disposable {
  readonly #deflate: Deflate = createDeflate({ dictionary: SPDY_DICTIONARY, flush: constants.Z_SYNC_FLUSH });

  /** Names must be lower case. Blocks must go out in the order in which they were compressed. */
  async compress(headers: Readonly<Record<string, string>>): Promise<Buffer> {
    const entries = Object.entries(headers);
    const count = Buffer.alloc(4);
    count.writeUInt32BE(entries.length);
    const block = Buffer.concat([count, ...entries.flat().map(counted)]);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#deflate.once('error', reject);
    this.#deflate.write(block, () => resolve());
    await promise;
    this.#deflate.off('error', reject);
    const parts: Buffer[] = [];
    for (let part: Buffer | null = this.#deflate.read(); part; part = this.#deflate.read()) parts.push(part);
    return Buffer.concat(parts);
  }

  [Symbol.dispose](): void {
    this.#deflate.destroy();
  }
}
