/** One streaming session: a client's upgraded connection and its other end in the guest. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { InfraletError } from '../base/errors.ts';
import { continuedHead } from './head.ts';
import { splice } from './splice.ts';
import type { StreamTarget } from './tokens.ts';

/** A connection with one direction ended may stay silent this long. */
const LINGER_MS = 30_000;

export interface SessionOptions {
  readonly client: Duplex;
  readonly request: IncomingMessage;
  /** What the client sent right after the head. */
  readonly head: Buffer;
  /** The session ends after this long without a byte in either direction. */
  readonly idleMs: number;
}

export class Session {
  readonly client: Duplex;
  readonly #request: IncomingMessage;
  readonly #head: Buffer;
  readonly #idleMs: number;
  readonly #gone = new AbortController();
  readonly #closed = Promise.withResolvers<void>();
  #fromGuest = 0;
  #fromClient = 0;

  constructor(options: SessionOptions) {
    this.client = options.client;
    this.#request = options.request;
    this.#head = options.head;
    this.#idleMs = options.idleMs;
    const { client } = options;
    client.on('error', () => client.destroy());
    client.once('close', () => {
      this.#gone.abort(new InfraletError('CANCELLED', 'the client closed its connection'));
      this.#closed.resolve();
    });
    client.on('readable', this.#noticeEnd);
    client.once('end', this.#onEarlyEnd);
    // All bytes of both directions pass the client's socket, so its own timer sees every one of them.
    options.request.socket.setTimeout(options.idleMs, () => client.destroy());
  }

  /** A connection that nobody reads does not notice its end: looks for it, without taking data. */
  readonly #noticeEnd = (): void => {
    if (this.client.readableLength === 0) this.client.read();
  };
  readonly #onEarlyEnd = (): void => void this.client.destroy();

  /** Fires when the client is gone. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Passes the request on and joins both connections; resolves when both are closed. */
  async run(target: StreamTarget): Promise<void> {
    const { client } = this;
    const guest = target.socket;
    try {
      this.#gone.signal.throwIfAborted();
      const { method = 'GET', rawHeaders } = this.#request;
      guest.write(continuedHead({ method, rawHeaders }, target));
      if (this.#head.length > 0) guest.write(this.#head);
      await this.#answered(guest);
    } catch (error) {
      guest.on('error', () => undefined);
      guest.destroy();
      throw error;
    }
    client.off('readable', this.#noticeEnd);
    client.off('end', this.#onEarlyEnd);
    // An end is followed by the other side's in no time; a side that keeps its half open for nothing shall not stay.
    const linger = (): void => void this.#request.socket.setTimeout(Math.min(this.#idleMs, LINGER_MS));
    client.once('end', linger);
    guest.once('end', linger);
    this.#fromClient = this.#head.length;
    client.on('data', (chunk: Buffer) => {
      this.#fromClient += chunk.length;
    });
    guest.on('data', (chunk: Buffer) => {
      this.#fromGuest += chunk.length;
    });
    await splice(client, guest);
  }

  /** Waits for the first bytes of the answer, so that a guest that fails before gets a proper answer from us. */
  async #answered(guest: Duplex): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const lost = (error?: Error): void => reject(unanswered(error));
    const onGone = (): void => reject(this.#gone.signal.reason);
    guest.once('readable', resolve);
    guest.once('error', lost);
    guest.once('close', lost);
    this.#gone.signal.addEventListener('abort', onGone, { once: true });
    try {
      await promise;
      if (guest.readableLength === 0) throw unanswered();
    } finally {
      guest.off('readable', resolve);
      guest.off('error', lost);
      guest.off('close', lost);
      this.#gone.signal.removeEventListener('abort', onGone);
    }
  }

  /** Bytes that passed, for the log. */
  counts(): { readonly fromClient: number; readonly fromGuest: number } {
    return { fromClient: this.#fromClient, fromGuest: this.#fromGuest };
  }

  /** Cuts the session. */
  async end(): Promise<void> {
    this.client.destroy();
    await this.#closed.promise;
  }
}

function unanswered(cause?: Error): InfraletError {
  return new InfraletError('UNAVAILABLE', 'the machine closed the stream without an answer', { cause });
}
