/**
 * `Tunnel`: one byte stream between a gRPC call and a socket inside the machine. Back-pressure both ways (a write that
 * is not taken stops the reading of the other side), half-close by TunnelEnd, and an error on one side ends the other.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { InfraletError } from '../base/errors.ts';
import type { TunnelFrame, TunnelFrame__Output } from '../gen/infralet/agent/v1/TunnelFrame.ts';
import type { TunnelOpen__Output } from '../gen/infralet/agent/v1/TunnelOpen.ts';
import { CHUNK_BYTES } from '../rpc/agent-protocol.ts';
import { toStatus } from './errors.ts';
import type { IncomingQueue } from './incoming.ts';
import { notePassed } from './memory.ts';
import { type AgentOptions, LIMITS } from './options.ts';

type Call = ServerDuplexStream<TunnelFrame__Output, TunnelFrame>;

export class Tunnels {
  readonly #streaming: AgentOptions['streaming'];
  readonly #incoming: IncomingQueue;
  #open = 0;

  constructor(streaming: AgentOptions['streaming'], incoming: IncomingQueue) {
    this.#streaming = streaming;
    this.#incoming = incoming;
  }

  serve(call: Call): void {
    if (this.#open >= LIMITS.tunnels) {
      call.emit(
        'error',
        toStatus(new InfraletError('RESOURCE_EXHAUSTED', `${LIMITS.tunnels} tunnels are open already`)),
      );
      return;
    }
    this.#open += 1;
    let ended = false;
    const end = (error?: unknown): void => {
      if (ended) return;
      ended = true;
      this.#open -= 1;
      if (error === undefined) call.end();
      else call.emit('error', toStatus(error));
    };
    call.once('cancelled', () => end(new InfraletError('CANCELLED', 'the daemon left the tunnel')));
    call.once('data', (first: TunnelFrame__Output) => {
      call.pause();
      this.#target(first.open).then(
        (socket) => (ended ? socket.destroy() : splice(call, socket, end)),
        (error: unknown) => end(error),
      );
    });
    call.once('end', () => end(new InfraletError('INVALID_ARGUMENT', 'the tunnel ended before it was opened')));
    call.resume();
  }

  async #target(open: TunnelOpen__Output | null | undefined): Promise<Socket> {
    if (open?.target === 'streaming') return await connected(this.#streaming.host, this.#streaming.port);
    if (open?.target === 'incoming') return this.#incoming.take(String(open.incoming));
    throw new InfraletError('INVALID_ARGUMENT', 'the first frame of a tunnel must say where it goes');
  }
}

/** Joins both; calls `end` once: without an error when both sides have said all they had to. */
function splice(call: Call, socket: Socket, end: (error?: unknown) => void): void {
  let sent = false;
  let received = false;
  const half = (): void => {
    if (sent && received) end();
  };
  // A reset, not a FIN: the program at the other end must not take a broken stream for a complete one.
  const reset = (): void => void socket.resetAndDestroy();
  const fail = (error: unknown): void => {
    reset();
    end(error);
  };

  call.removeAllListeners('end');
  call.write({ opened: {} });
  socket.on('data', (bytes: Buffer) => {
    let flowing = true;
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      flowing = call.write({ data: bytes.subarray(at, at + CHUNK_BYTES) });
    }
    if (!flowing) socket.pause();
    notePassed(bytes.length);
  });
  call.on('drain', () => socket.resume());
  socket.on('end', () => {
    sent = true;
    call.write({ end: {} });
    half();
  });
  call.on('data', (frame: TunnelFrame__Output) => {
    if (frame.frame === 'end') {
      received = true;
      socket.end(half);
    } else if (frame.data && !received && frame.data.length <= LIMITS.tunnelFrame) {
      if (!socket.write(frame.data)) call.pause();
      notePassed(frame.data.length);
    } else {
      fail(new InfraletError('INVALID_ARGUMENT', 'a tunnel frame is out of place or too large'));
    }
  });
  socket.on('drain', () => call.resume());
  call.on('end', () => {
    if (!received) fail(new InfraletError('CANCELLED', 'the daemon ended the tunnel in the middle'));
  });
  call.on('cancelled', reset);
  call.on('error', reset);
  socket.on('error', (error) => fail(new InfraletError('UNAVAILABLE', `the connection broke: ${error.message}`)));
  socket.on('close', () => {
    if (!sent || !received) fail(new InfraletError('UNAVAILABLE', 'the connection closed'));
  });
  socket.resume();
  call.resume();
}

async function connected(host: string, port: number): Promise<Socket> {
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(LIMITS.connectMs) });
    return socket;
  } catch (error) {
    socket.destroy();
    throw new InfraletError('UNAVAILABLE', `nothing answers on ${host}:${port} inside the machine`, { cause: error });
  }
}
