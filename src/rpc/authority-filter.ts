/**
 * Rewrites the client's side of an HTTP/2 connection so that Node accepts it: CRI clients before Kubernetes 1.30 send
 * the path of the socket as `:authority`, which nghttp2 refuses with PROTOCOL_ERROR.
 *
 * All bytes pass untouched, and without a copy, except for header blocks that hold such a literal.
 */
import { rewriteAuthority } from './hpack.ts';

const PREFACE_BYTES = 24;
const FRAME_HEADER_BYTES = 9;
const HEADERS = 1;
const CONTINUATION = 9;
const END_HEADERS = 0x4;
const PADDED = 0x8;
const PRIORITY = 0x20;
const PRIORITY_BYTES = 5;
/** Smallest "largest frame" that a peer may set, and what Node announces. */
const MAX_PAYLOAD = 16_384;
/** A header block longer than this passes as it is: the HTTP/2 session refuses it anyway. */
const MAX_BLOCK = 256 * 1024;

interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
  readonly end: number;
}

export class AuthorityFilter {
  /** The start of a header block whose rest has not arrived. */
  #held: Buffer = Buffer.alloc(0);
  /** Bytes that pass unseen: the connection preface, then rests of frames. */
  #skip = PREFACE_BYTES;

  /** Takes what the client sent; returns what the server shall see, in order. */
  push(chunk: Buffer): readonly Buffer[] {
    const data = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const out: Buffer[] = [];
    let emitted = 0;
    let at = 0;
    for (;;) {
      const skipped = Math.min(this.#skip, data.length - at);
      at += skipped;
      this.#skip -= skipped;
      if (data.length - at < FRAME_HEADER_BYTES) break;
      if (data[at + 3] !== HEADERS) {
        this.#skip = FRAME_HEADER_BYTES + data.readUIntBE(at, 3);
        continue;
      }
      const frames = headerFrames(data, at);
      if (frames === undefined) {
        if (data.length - at <= MAX_BLOCK) break;
        this.#skip = Number.POSITIVE_INFINITY;
        continue;
      }
      const end = frames.at(-1)?.end ?? data.length;
      const replaced = rewriteFrames(frames);
      if (replaced) {
        if (at > emitted) out.push(data.subarray(emitted, at));
        out.push(replaced);
        emitted = end;
      }
      at = end;
    }
    if (at > emitted) out.push(data.subarray(emitted, at));
    this.#held = data.subarray(at);
    return out;
  }
}

/** HEADERS and its CONTINUATIONs from `at` on; undefined while some are missing. */
function headerFrames(data: Buffer, at: number): readonly Frame[] | undefined {
  const frames: Frame[] = [];
  for (let next = at; ; ) {
    const frame = readFrame(data, next);
    if (!frame) return undefined;
    const expected = frames.length === 0 ? HEADERS : CONTINUATION;
    // Something else in between is a protocol error, which the session shall see as it is.
    if (frame.type !== expected || frame.stream !== (frames[0] ?? frame).stream) return frames;
    frames.push(frame);
    if ((frame.flags & END_HEADERS) !== 0) return frames;
    next = frame.end;
  }
}

function readFrame(data: Buffer, at: number): Frame | undefined {
  if (data.length - at < FRAME_HEADER_BYTES) return undefined;
  const start = at + FRAME_HEADER_BYTES;
  const end = start + data.readUIntBE(at, 3);
  if (end > data.length) return undefined;
  return {
    type: data.readUInt8(at + 3),
    flags: data.readUInt8(at + 4),
    stream: data.readUInt32BE(at + 5) & 0x7fff_ffff,
    payload: data.subarray(start, end),
    end,
  };
}

function rewriteFrames(frames: readonly Frame[]): Buffer | undefined {
  const [first] = frames;
  if (!first || ((frames.at(-1)?.flags ?? 0) & END_HEADERS) === 0) return undefined;
  const padded = (first.flags & PADDED) !== 0;
  const padding = padded ? (first.payload[0] ?? 0) : 0;
  const prefix = padded ? 1 : 0;
  const fields = prefix + ((first.flags & PRIORITY) === 0 ? 0 : PRIORITY_BYTES);
  if (fields + padding > first.payload.length) return undefined;
  const priority = first.payload.subarray(prefix, fields);
  const block = rewriteAuthority(
    Buffer.concat([
      first.payload.subarray(fields, first.payload.length - padding),
      ...frames.slice(1).map((frame) => frame.payload),
    ]),
  );
  return block && writeFrames(first, Buffer.concat([priority, block]));
}

/** Cuts a payload into HEADERS and as many CONTINUATIONs as it needs, without padding. */
function writeFrames(first: Frame, payload: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at === 0 || at < payload.length; at += MAX_PAYLOAD) {
    const piece = payload.subarray(at, at + MAX_PAYLOAD);
    const header = Buffer.alloc(FRAME_HEADER_BYTES);
    header.writeUIntBE(piece.length, 0, 3);
    header.writeUInt8(at === 0 ? HEADERS : CONTINUATION, 3);
    const end = at + MAX_PAYLOAD >= payload.length ? END_HEADERS : 0;
    header.writeUInt8(at === 0 ? (first.flags & ~(PADDED | END_HEADERS)) | end : end, 4);
    header.writeUInt32BE(first.stream, 5);
    parts.push(header, piece);
  }
  return Buffer.concat(parts);
}
