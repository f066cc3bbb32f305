/** The opening side of a SPDY connection: streams with named headers, bytes both ways, half-close, back-pressure. */
import type { Duplex } from 'node:stream';
import { InfraletError } from '../../base/errors.ts';
import { abortable } from '../../base/keyed-lock.ts';
import { DATA_BYTES, dataHead, FrameReader, goAway, ping, rstStream, synStream } from './frames.ts';
import { HeaderCompressor } from './headers.ts';

/** RST_STREAM's word for "this stream is of no use to me any more". */
const CANCEL = 5;

export interface SpdyEvents {
  readonly data: (stream: number, bytes: Buffer) => void;
  /** The other side ended or reset the stream; told once for each. */
  readonly end: (stream: number) => void;
  /** The connection is over; with an error when it broke. Told once. */
  readonly close: (error?: InfraletError) => void;
}

interface Stream {
  readonly replied: PromiseWithResolvers<void>;
  readEnded: boolean;
  writeEnded: boolean;
}

export class SpdyClient {
  readonly #socket: Duplex;
  readonly #events: SpdyEvents;
  readonly #streams = new Map<number, Stream>();
  readonly #compressor = new HeaderCompressor();
  #next = 1;
  #closed = false;
  #drained: (() => void) | undefined;

  constructor(socket: Duplex, events: SpdyEvents) {
    this.#socket = socket;
    this.#events = events;
    const reader = new FrameReader({
      reply: (stream) => this.#streams.get(stream)?.replied.resolve(),
      data: (stream, bytes) => {
        if (this.#streams.get(stream)?.readEnded === false) events.data(stream, bytes);
      },
      end: (stream, reset) => this.#ended(stream, reset),
      // Even numbers are the server's own pings; odd ones would be answers to ours.
      ping: (id) => void (id % 2 === 0 && this.#send(ping(id))),
      goAway: () => undefined,
    });
    socket.on('data', (chunk: Buffer) => {
      if (this.#closed) return;
      try {
        reader.push(chunk);
      } catch (error) {
        this.#close(InfraletError.from(error));
        socket.destroy();
      }
    });
    socket.on('drain', () => this.#drained?.());
    socket.on('end', () => this.#close());
    socket.on('error', (error) => this.#close(InfraletError.from(error, 'UNAVAILABLE')));
    socket.on('close', () => this.#close(new InfraletError('UNAVAILABLE', 'the connection to the machine closed')));
  }

  /** Opens streams in order; one call at a time; resolves with their numbers when the other side has taken all of them. */
  async open(headers: readonly Readonly<Record<string, string>>[], signal: AbortSignal): Promise<readonly number[]> {
    const opened: number[] = [];
    const replies: Promise<void>[] = [];
    for (const header of headers) {
      if (this.#closed) break;
      const id = this.#next;
      this.#next += 2;
      const stream = { replied: Promise.withResolvers<void>(), readEnded: false, writeEnded: false };
      stream.replied.promise.catch(() => undefined);
      this.#streams.set(id, stream);
      opened.push(id);
      replies.push(stream.replied.promise);
      this.#send(synStream(id, await this.#compressor.compress(header)));
    }
    if (this.#closed) throw new InfraletError('UNAVAILABLE', 'the machine closed the stream while it was opened');
    await abortable(Promise.all(replies), signal);
    return opened;
  }

  /** False when the caller shall wait for `onDrain`. What is written to an ended stream is dropped. */
  write(id: number, bytes: Buffer): boolean {
    const stream = this.#streams.get(id);
    if (!stream || stream.writeEnded || bytes.length === 0) return true;
    let flowing = true;
    this.#socket.cork();
    for (let at = 0; at < bytes.length; at += DATA_BYTES) {
      const piece = bytes.subarray(at, at + DATA_BYTES);
      this.#send(dataHead(id, piece.length, false));
      flowing = this.#send(piece);
    }
    this.#socket.uncork();
    return flowing;
  }

  /** Says that nothing more comes on this stream. */
  finish(id: number): void {
    const stream = this.#streams.get(id);
    if (!stream || stream.writeEnded) return;
    stream.writeEnded = true;
    this.#send(dataHead(id, 0, true));
  }

  /** Gives up a stream in both directions. */
  reset(id: number): void {
    const stream = this.#streams.get(id);
    if (!stream) return;
    stream.writeEnded = true;
    this.#send(rstStream(id, CANCEL));
    this.#ended(id, true);
  }

  onDrain(listener: () => void): void {
    this.#drained = listener;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Takes leave: what was written still goes out. */
  end(): void {
    this.#send(goAway());
    this.#socket.end();
  }

  #send(bytes: Buffer): boolean {
    return this.#socket.writable ? this.#socket.write(bytes) : true;
  }

  #ended(id: number, reset: boolean): void {
    const stream = this.#streams.get(id);
    if (!stream) return;
    if (reset) stream.writeEnded = true;
    stream.replied.reject(new InfraletError('UNAVAILABLE', 'the machine refused a stream of the session'));
    if (stream.readEnded) return;
    stream.readEnded = true;
    this.#events.end(id);
  }

  #close(error?: InfraletError): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#compressor[Symbol.dispose]();
    for (const { replied } of this.#streams.values()) {
      replied.reject(error ?? new InfraletError('UNAVAILABLE', 'the machine closed the stream while it was opened'));
    }
    this.#events.close(error);
  }
}
