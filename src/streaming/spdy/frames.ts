/**
 * SPDY/3.1 frames as Kubernetes uses them: streams are opened by one side, there are no flow-control windows (the TCP
 * connection's back-pressure is all there is), and header blocks of answers carry nothing of interest.
 */
import { InfraletError } from '../../base/errors.ts';

const VERSION = 3;
const SYN_STREAM = 1;
const SYN_REPLY = 2;
const RST_STREAM = 3;
const PING = 6;
const GOAWAY = 7;
const HEADERS = 8;

const FLAG_FIN = 1;
const HEADER_BYTES = 8;
/** As much of a control frame's body as is looked at; the rest is passed over. */
const BODY_BYTES = 8;
const STREAM_MASK = 0x7fffffff;
/** Payload of one DATA frame. Its receiver makes room for the whole frame before it reads on. */
export const DATA_BYTES = 64 * 1024;

/** What a reader finds. Data comes in pieces as they arrive, whatever the frame's length. */
export interface FrameHandler {
  /** The other side takes the stream. */
  readonly reply: (stream: number) => void;
  readonly data: (stream: number, bytes: Buffer) => void;
  /** The other side says no more on this stream; `reset` when it also hears no more. */
  readonly end: (stream: number, reset: boolean) => void;
  readonly ping: (id: number) => void;
  readonly goAway: () => void;
}

export function synStream(stream: number, headers: Uint8Array): Buffer {
  const head = Buffer.alloc(10);
  head.writeUInt32BE(stream, 0);
  return control(SYN_STREAM, Buffer.concat([head, headers]));
}

export function rstStream(stream: number, status: number): Buffer {
  return control(RST_STREAM, words(stream, status));
}

export function ping(id: number): Buffer {
  return control(PING, words(id));
}

export function goAway(): Buffer {
  return control(GOAWAY, words(0, 0));
}

/** The head of a DATA frame with `length` bytes to follow. */
export function dataHead(stream: number, length: number, fin: boolean): Buffer {
  return words(stream, (fin ? FLAG_FIN * 0x1000000 : 0) + length);
}

function control(type: number, body: Uint8Array): Buffer {
  const head = Buffer.allocUnsafe(HEADER_BYTES);
  head.writeUInt16BE(0x8000 | VERSION, 0);
  head.writeUInt16BE(type, 2);
  head.writeUInt32BE(body.length, 4);
  return Buffer.concat([head, body]);
}

function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(4 * values.length);
  for (const [at, value] of values.entries()) bytes.writeUInt32BE(value, 4 * at);
  return bytes;
}

interface Frame {
  /** Of a control frame; undefined for data. */
  readonly type: number | undefined;
  /** Of a data frame. */
  readonly stream: number;
  readonly fin: boolean;
  left: number;
}

/** Takes bytes as they come; holds at most a frame's head and eight bytes of a control frame's body. */
export class FrameReader {
  readonly #handler: FrameHandler;
  readonly #head = Buffer.alloc(HEADER_BYTES);
  readonly #body = Buffer.alloc(BODY_BYTES);
  #headBytes = 0;
  #bodyBytes = 0;
  #frame: Frame | undefined;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** Throws DATA_LOSS when the bytes are no SPDY/3. */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length || this.#frame?.left === 0) {
      if (!this.#frame) at += this.#takeHead(chunk.subarray(at));
      else if (this.#frame.left > 0) at += this.#takeBody(this.#frame, chunk.subarray(at));
      if (this.#frame?.left === 0) this.#finish(this.#frame);
    }
  }

  #takeHead(bytes: Buffer): number {
    const taken = bytes.copy(this.#head, this.#headBytes);
    this.#headBytes += taken;
    if (this.#headBytes < HEADER_BYTES) return taken;
    this.#headBytes = 0;
    this.#bodyBytes = 0;
    const first = this.#head.readUInt32BE(0);
    const isControl = first > STREAM_MASK;
    if (isControl && (this.#head.readUInt16BE(0) & 0x7fff) !== VERSION) {
      throw new InfraletError('DATA_LOSS', 'the machine sent something that is no SPDY/3 frame');
    }
    this.#frame = {
      type: isControl ? this.#head.readUInt16BE(2) : undefined,
      stream: first & STREAM_MASK,
      fin: (this.#head.readUInt8(4) & FLAG_FIN) !== 0,
      left: this.#head.readUIntBE(5, 3),
    };
    return taken;
  }

  #takeBody(frame: Frame, bytes: Buffer): number {
    const piece = bytes.subarray(0, frame.left);
    frame.left -= piece.length;
    if (frame.type === undefined) this.#handler.data(frame.stream, piece);
    else this.#bodyBytes += piece.copy(this.#body, this.#bodyBytes);
    return piece.length;
  }

  #finish(frame: Frame): void {
    this.#frame = undefined;
    if (frame.type === undefined) {
      if (frame.fin) this.#handler.end(frame.stream, false);
      return;
    }
    if (this.#bodyBytes < 4) {
      if ([SYN_REPLY, RST_STREAM, PING, HEADERS].includes(frame.type)) {
        throw new InfraletError('DATA_LOSS', `the machine sent a SPDY frame of type ${frame.type} without its body`);
      }
    }
    const value = this.#body.readUInt32BE(0);
    const stream = value & STREAM_MASK;
    if (frame.type === SYN_REPLY) this.#handler.reply(stream);
    else if (frame.type === RST_STREAM) this.#handler.end(stream, true);
    else if (frame.type === PING) this.#handler.ping(value);
    else if (frame.type === GOAWAY) this.#handler.goAway();
    // SETTINGS, WINDOW_UPDATE and the like mean nothing to a peer without windows.
    const ends = frame.type === SYN_REPLY || frame.type === HEADERS;
    if (ends && frame.fin) this.#handler.end(stream, false);
  }
}
