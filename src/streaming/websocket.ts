/** WebSockets that end on this node: taking over the connection, and sending with back-pressure. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { InfraletError } from '../base/errors.ts';
import { abortable } from '../base/keyed-lock.ts';
import { passingBytes } from '../base/passing-bytes.ts';

/** What may wait for a client that reads slowly before its source is stopped, and when the source goes on. */
const HIGH_BYTES = 256 * 1024;
const LOW_BYTES = 64 * 1024;

const notePassed = passingBytes(4 * 1024 * 1024);

export const NORMAL_CLOSURE = 1000;
export const UNSUPPORTED_DATA = 1003;
export const INTERNAL_ERROR = 1011;

export interface Upgrade {
  readonly request: IncomingMessage;
  readonly client: Duplex;
  /** What the client sent right after its request. */
  readonly head: Buffer;
  /** The subprotocol to answer with; one of those the client offered. */
  readonly protocol: string;
  /** Bytes of the largest message taken; a longer one closes the connection with 1009. */
  readonly maxMessage: number;
}

/**
 * Answers the request; the WebSocket is paused, so that no message comes before somebody listens. A malformed request is
 * answered by the library, whose connection then closes: `gone` says so.
 */
export async function acceptWebSocket(upgrade: Upgrade, gone: AbortSignal): Promise<WebSocket> {
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: upgrade.maxMessage,
  });
  // Not by the library, which takes only tokens for names; "SPDY/3.1+portforward.k8s.io" is none.
  delete upgrade.request.headers['sec-websocket-protocol'];
  server.on('headers', (headers) => headers.push(`Sec-WebSocket-Protocol: ${upgrade.protocol}`));
  const { promise, resolve } = Promise.withResolvers<WebSocket>();
  server.handleUpgrade(upgrade.request, upgrade.client, upgrade.head, (socket) => {
    socket.pause();
    socket.on('error', () => undefined);
    resolve(socket);
  });
  return await abortable(promise, gone);
}

/** Resolves when the connection is closed, by whichever side. */
export async function closed(socket: WebSocket): Promise<void> {
  if (socket.readyState === socket.CLOSED) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.once('close', () => resolve());
  await promise;
}

/** Messages arrive as one Buffer each. */
export function messageBytes(data: unknown): Buffer {
  if (Buffer.isBuffer(data)) {
    notePassed(data.length);
    return data;
  }
  throw new InfraletError('INTERNAL', 'a WebSocket message is no Buffer');
}

interface Source {
  pause(): void;
  resume(): void;
}

/** The way to a client; stops its source while the client does not keep up. */
export class Outlet {
  readonly #socket: WebSocket;
  readonly #source: Source;
  #stopped = false;

  constructor(socket: WebSocket, source: Source) {
    this.#socket = socket;
    this.#source = source;
  }

  send(bytes: Buffer): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    notePassed(bytes.length);
    this.#socket.send(bytes, { binary: true }, () => {
      if (!this.#stopped || this.#socket.bufferedAmount > LOW_BYTES) return;
      this.#stopped = false;
      this.#source.resume();
    });
    if (this.#stopped || this.#socket.bufferedAmount <= HIGH_BYTES) return;
    this.#stopped = true;
    this.#source.pause();
  }
}
