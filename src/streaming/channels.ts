/**
 * Exec and attach for clients of v5.channel.k8s.io: binary messages whose first byte names a channel become streams of a
 * v4 SPDY session, which is what containerd's server speaks. Unlike the older channel protocols it can end stdin.
 */
import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import { InfraletError } from '../base/errors.ts';
import { SpdyClient } from './spdy/client.ts';
import type { SessionStreams } from './tokens.ts';
import { closed, messageBytes, NORMAL_CLOSURE, Outlet, UNSUPPORTED_DATA } from './websocket.ts';

/** The subprotocol towards the guest: exit codes come as a Status object, resizes have a stream. */
export const REMOTE_COMMAND = 'v4.channel.k8s.io';

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const ERROR = 3;
const RESIZE = 4;
/** Not a channel: the next byte names the one that its sender ends. */
const CLOSE = 255;

const TYPES: readonly string[] = ['stdin', 'stdout', 'stderr', 'error', 'resize'];
const OUTPUTS: readonly number[] = [STDOUT, STDERR, ERROR];

/** Runs the session until the client's connection is closed. Failures of the guest become a status for the client. */
export async function serveChannels(
  client: WebSocket,
  guest: Duplex,
  streams: SessionStreams,
  gone: AbortSignal,
): Promise<void> {
  const session = new ChannelSession(client, guest, streams);
  try {
    await session.open(gone);
  } catch (error) {
    session.fail(InfraletError.from(error));
  }
  await closed(client);
}

class ChannelSession {
  readonly #client: WebSocket;
  readonly #spdy: SpdyClient;
  /** In the order in which their streams are opened; the stream of the nth has the number 2n + 1. */
  readonly #channels: readonly number[];
  readonly #outlet: Outlet;
  /** Output channels that have not ended. */
  readonly #open: Set<number>;
  /** Whether the client waits because the guest does not take more. */
  #waiting = false;
  /** Whether the guest said how it went. */
  #told = false;

  constructor(client: WebSocket, guest: Duplex, { stdin, stdout, stderr, tty }: SessionStreams) {
    this.#client = client;
    this.#channels = [
      ERROR,
      ...(stdin ? [STDIN] : []),
      ...(stdout ? [STDOUT] : []),
      // A terminal has one output.
      ...(stderr && !tty ? [STDERR] : []),
      ...(tty ? [RESIZE] : []),
    ];
    this.#open = new Set(this.#channels.filter((channel) => OUTPUTS.includes(channel)));
    this.#spdy = new SpdyClient(guest, {
      data: (stream, bytes) => this.#output(this.#channel(stream), bytes),
      end: (stream) => this.#outputEnded(this.#channel(stream)),
      close: (error) => this.fail(error ?? new InfraletError('UNAVAILABLE', 'the machine closed the stream')),
    });
    this.#spdy.onDrain(() => {
      if (this.#waiting) client.resume();
      this.#waiting = false;
    });
    this.#outlet = new Outlet(client, this.#spdy);
    client.on('message', (data, binary) => {
      if (!binary) client.close(UNSUPPORTED_DATA, 'only binary messages have channels');
      else if (!this.#input(messageBytes(data))) {
        this.#waiting = true;
        client.pause();
      }
    });
    client.once('close', () => {
      const stdin = this.#stream(STDIN);
      if (stdin !== undefined) this.#spdy.finish(stdin);
      this.#spdy.end();
    });
  }

  /** Opens the streams towards the guest, then lets the client speak. */
  async open(gone: AbortSignal): Promise<void> {
    await this.#spdy.open(
      this.#channels.map((channel) => ({ streamtype: TYPES[channel] ?? '' })),
      gone,
    );
    // Kubernetes' own server does so: it tells a client that expects no output that the command is there.
    this.#outlet.send(Buffer.of(this.#open.has(STDOUT) ? STDOUT : ERROR));
    this.#client.resume();
  }

  /** Ends the session. A guest that did not say how it went has failed. */
  fail(error: InfraletError): void {
    if (!this.#told) this.#outlet.send(Buffer.concat([Buffer.of(ERROR), Buffer.from(failureStatus(error))]));
    this.#end();
  }

  #channel(stream: number): number {
    return this.#channels[(stream - 1) / 2] ?? CLOSE;
  }

  #stream(channel: number): number | undefined {
    const index = this.#channels.indexOf(channel);
    return index < 0 ? undefined : 2 * index + 1;
  }

  #output(channel: number, bytes: Buffer): void {
    if (!OUTPUTS.includes(channel) || bytes.length === 0) return;
    if (channel === ERROR) this.#told = true;
    this.#outlet.send(Buffer.concat([Buffer.of(channel), bytes]));
  }

  #outputEnded(channel: number): void {
    if (!this.#open.delete(channel) || this.#open.size > 0) return;
    if (this.#told) this.#end();
    else this.fail(new InfraletError('UNAVAILABLE', 'the machine ended the session without a result'));
  }

  /** False when the client shall wait. What is for no stream of this session is dropped, as everywhere. */
  #input(message: Buffer): boolean {
    const [channel = CLOSE, second = CLOSE] = message;
    if (channel === CLOSE && message.length === 2) {
      const ended = second === STDIN || second === RESIZE ? this.#stream(second) : undefined;
      if (ended !== undefined) this.#spdy.finish(ended);
      return true;
    }
    const stream = channel === STDIN || channel === RESIZE ? this.#stream(channel) : undefined;
    return stream === undefined || this.#spdy.write(stream, message.subarray(1));
  }

  #end(): void {
    // A client that was told to wait would not see our goodbye answered.
    this.#client.resume();
    this.#client.close(NORMAL_CLOSURE);
  }
}

/** What a Kubernetes client shows its user: a v1.Status. */
function failureStatus({ message }: InfraletError): string {
  return JSON.stringify({
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message,
    reason: 'InternalError',
    details: { causes: [{ message }] },
    code: 500,
  });
}
