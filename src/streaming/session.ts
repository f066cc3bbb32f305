/** One streaming session: a client's upgraded connection and its other end in the guest. */
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { InfraletError } from '../base/errors.ts';
import { firstBytes, switchedProtocols } from './answer.ts';
import { REMOTE_COMMAND, serveChannels } from './channels.ts';
import { continuedHead } from './head.ts';
import { ownProtocol } from './protocols.ts';
import { splice } from './splice.ts';
import type { StreamKind, StreamTarget } from './tokens.ts';
import { PORT_FORWARD, serveTunnelledPorts } from './tunnelled-ports.ts';
import { acceptWebSocket } from './websocket.ts';

/** A connection with one direction ended may stay silent this long. */
const LINGER_MS = 30_000;

export interface SessionOptions {
  readonly kind: StreamKind;
  readonly client: Duplex;
  readonly request: IncomingMessage;
  /** What the client sent right after the head. */
  readonly head: Buffer;
  /** The session ends after this long without a byte in either direction. */
  readonly idleMs: number;
  /** Bytes of the largest WebSocket message that is taken. */
  readonly maxMessage: number;
}

export class Session {
  readonly client: Duplex;
  readonly #request: IncomingMessage;
  readonly #head: Buffer;
  readonly #idleMs: number;
  readonly #kind: StreamKind;
  readonly #maxMessage: number;
  readonly #gone = new AbortController();
  readonly #closed = Promise.withResolvers<void>();

  constructor(options: SessionOptions) {
    this.client = options.client;
    this.#request = options.request;
    this.#head = options.head;
    this.#idleMs = options.idleMs;
    this.#kind = options.kind;
    this.#maxMessage = options.maxMessage;
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
  readonly #linger = (): void => void this.#request.socket.setTimeout(Math.min(this.#idleMs, LINGER_MS));

  /** Fires when the client is gone. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Passes the request on and joins both connections; resolves when both are closed. */
  async run(target: StreamTarget): Promise<void> {
    const guest = target.socket;
    const convertible = this.#kind === 'portforward' || target.streams !== undefined;
    const protocol = convertible ? ownProtocol(this.#kind, this.#request) : undefined;
    try {
      this.#gone.signal.throwIfAborted();
      if (protocol === undefined) await this.#continue(target);
      else await this.#convert(target);
    } catch (error) {
      guest.on('error', () => undefined);
      guest.destroy();
      throw error;
    }
    this.#stopWatching();
    if (protocol === undefined) await this.#splice(guest);
    else await this.#serve(target, protocol);
  }

  /** The same request for the guest's server, whose answer the client is to read. */
  async #continue(target: StreamTarget): Promise<void> {
    const { method = 'GET', rawHeaders } = this.#request;
    target.socket.write(continuedHead({ method, rawHeaders }, target));
    if (this.#head.length > 0) target.socket.write(this.#head);
    // A guest that fails before gets a proper answer from us.
    await firstBytes(target.socket, this.#gone.signal);
  }

  /** A SPDY request in place of the client's; the answer is ours to read. */
  async #convert(target: StreamTarget): Promise<void> {
    const protocol = this.#kind === 'portforward' ? PORT_FORWARD : REMOTE_COMMAND;
    const headers = { Connection: 'Upgrade', Upgrade: 'SPDY/3.1', 'X-Stream-Protocol-Version': protocol };
    target.socket.write(continuedHead({ method: 'POST', rawHeaders: Object.entries(headers).flat() }, target));
    await switchedProtocols(target.socket, this.#gone.signal);
  }

  async #splice(guest: Duplex): Promise<void> {
    const { client } = this;
    // An end is followed by the other side's in no time; a side that keeps its half open for nothing shall not stay.
    client.once('end', this.#linger);
    guest.once('end', this.#linger);
    await splice(client, guest);
  }

  async #serve({ socket: guest, streams }: StreamTarget, protocol: string): Promise<void> {
    const { client } = this;
    // A stream whose last "readable" listener went starts to flow one tick later, whoever has paused it meanwhile.
    await nextTurn();
    const closing = once(guest, 'close').catch(() => undefined);
    guest.on('error', () => undefined);
    try {
      const upgrade = { request: this.#request, client, head: this.#head, protocol, maxMessage: this.#maxMessage };
      const socket = await acceptWebSocket(upgrade, this.#gone.signal);
      // The library has switched the timer off.
      this.#request.socket.setTimeout(this.#idleMs, () => client.destroy());
      if (streams) await serveChannels(socket, guest, streams, this.#gone.signal);
      else await serveTunnelledPorts(socket, guest);
      // The guest was told; what it was sent last shall arrive, and then it has nobody to talk to.
      const timer = setTimeout(() => guest.destroy(), LINGER_MS);
      guest.resume();
      await closing;
      clearTimeout(timer);
    } finally {
      guest.destroy();
    }
  }

  #stopWatching(): void {
    this.client.off('readable', this.#noticeEnd);
    this.client.off('end', this.#onEarlyEnd);
  }

  /** Bytes of the client's connection, for the log. */
  counts(): { readonly fromClient: number; readonly fromGuest: number } {
    const { bytesRead, bytesWritten } = this.#request.socket;
    return { fromClient: bytesRead, fromGuest: bytesWritten };
  }

  /** Cuts the session. */
  async end(): Promise<void> {
    this.client.destroy();
    await this.#closed.promise;
  }
}
