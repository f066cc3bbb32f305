/** The answering side of a SPDY/3.1 connection, written against the protocol's text and not against our client. */
import type { Duplex } from 'node:stream';
import { constants, createInflate, type Inflate } from 'node:zlib';
import { SPDY_DICTIONARY } from '../../src/streaming/spdy/dictionary.ts';

export interface ServedStream {
  readonly id: number;
  readonly headers: Readonly<Record<string, string>>;
}

export interface SpdyHandler {
  readonly stream?: (stream: ServedStream) => void;
  readonly data?: (id: number, bytes: Buffer) => void;
  readonly fin?: (id: number) => void;
  readonly reset?: (id: number) => void;
  readonly ping?: (id: number) => void;
  readonly goAway?: () => void;
  readonly closed?: () => void;
}

export class SpdyServer {
  readonly socket: Duplex;
  readonly #inflate: Inflate = createInflate({ dictionary: SPDY_DICTIONARY, finishFlush: constants.Z_SYNC_FLUSH });
  readonly #handler: SpdyHandler;
  #held = Buffer.alloc(0);
  #work = Promise.resolve();

  constructor(socket: Duplex, head: Buffer, handler: SpdyHandler) {
    this.socket = socket;
    this.#handler = handler;
    socket.on('error', () => undefined);
    socket.on('close', () => handler.closed?.());
    socket.on('end', () => {
      socket.end();
      handler.closed?.();
    });
    const take = (chunk: Buffer): void => {
      socket.pause();
      this.#work = this.#work.then(() => this.#take(chunk)).finally(() => socket.resume());
    };
    take(head);
    socket.on('data', take);
  }

  async #take(chunk: Buffer): Promise<void> {
    this.#held = Buffer.concat([this.#held, chunk]);
    while (this.#held.length >= 8) {
      const length = this.#held.readUIntBE(5, 3);
      if (this.#held.length < 8 + length) return;
      const frame = this.#held.subarray(0, 8 + length);
      this.#held = this.#held.subarray(8 + length);
      await this.#frame(frame.readUInt32BE(0), frame.readUInt8(4), frame.subarray(8));
    }
  }

  async #frame(first: number, flags: number, body: Buffer): Promise<void> {
    if (first < 0x80000000) {
      if (body.length > 0) this.#handler.data?.(first, body);
      if (flags & 1) this.#handler.fin?.(first);
      return;
    }
    if (first >>> 16 !== 0x8003) throw new Error(`no SPDY/3 control frame: ${first.toString(16)}`);
    switch (first & 0xffff) {
      case 1: {
        const id = body.readUInt32BE(0);
        const headers = await this.#headers(body.subarray(10));
        this.#handler.stream?.({ id, headers });
        break;
      }
      case 3:
        this.#handler.reset?.(body.readUInt32BE(0));
        break;
      case 6:
        this.#handler.ping?.(body.readUInt32BE(0));
        break;
      case 7:
        this.#handler.goAway?.();
        break;
      default:
    }
  }

  async #headers(block: Buffer): Promise<Readonly<Record<string, string>>> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#inflate.write(block, () => resolve());
    await promise;
    const plain = this.#inflate.read() as Buffer;
    let at = 4;
    const text = (): string => {
      const length = plain.readUInt32BE(at);
      at += 4 + length;
      return plain.subarray(at - length, at).toString();
    };
    return Object.fromEntries(Array.from({ length: plain.readUInt32BE(0) }, () => [text(), text()]));
  }

  #control(type: number, body: Buffer, flags = 0): void {
    const head = Buffer.alloc(8);
    head.writeUInt16BE(0x8003, 0);
    head.writeUInt16BE(type, 2);
    head.writeUInt32BE(body.length, 4);
    head.writeUInt8(flags, 4);
    this.socket.write(Buffer.concat([head, body]));
  }

  /** An empty header block, plainly wrong as zlib: clients of ours must not care. */
  reply(id: number): void {
    this.#control(2, Buffer.from([0, 0, id >>> 8, id & 255, 1, 2, 3]));
  }

  /** False when the other side does not take more for now. */
  send(id: number, bytes: Uint8Array, fin = false): boolean {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(id, 0);
    head.writeUInt32BE(bytes.length, 4);
    head.writeUInt8(fin ? 1 : 0, 4);
    this.socket.write(head);
    return this.socket.write(bytes);
  }

  reset(id: number, status = 5): void {
    this.#control(3, Buffer.from([0, 0, id >>> 8, id & 255, 0, 0, 0, status]));
  }

  ping(id: number): void {
    this.#control(6, Buffer.from([0, 0, 0, id]));
  }

  goAway(): void {
    this.#control(7, Buffer.alloc(8));
  }
}
