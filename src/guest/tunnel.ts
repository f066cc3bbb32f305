/**
 * One Tunnel call as a Duplex. Back-pressure both ways; `end()` is a half-close, and the other side's end ends reading;
 * destroying it, or an error of the call, ends both.
 */
import { Duplex } from 'node:stream';
import type { ClientDuplexStream } from '@grpc/grpc-js';
import { InfraletError } from '../base/errors.ts';
import { passingBytes } from '../base/passing-bytes.ts';
import type { TunnelFrame, TunnelFrame__Output } from '../gen/infralet/agent/v1/TunnelFrame.ts';
import type { TunnelOpen } from '../gen/infralet/agent/v1/TunnelOpen.ts';
import { CHUNK_BYTES } from '../rpc/agent-protocol.ts';
import { fromStatus } from './calls.ts';

type Call = ClientDuplexStream<TunnelFrame, TunnelFrame__Output>;

/** A megabyte through a tunnel leaves several of garbage; see there. */
const notePassed = passingBytes(4 * 1024 * 1024);

const NEVER = new AbortController().signal;

/** Sends the opening frame and resolves when the agent has connected the other end. */
export async function openTunnel(call: Call, open: TunnelOpen, signal: AbortSignal): Promise<Duplex> {
  const tunnel = new Tunnel(call);
  const abort = (): void => void tunnel.destroy(InfraletError.from(signal.reason, 'CANCELLED'));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  tunnel
    .once('opened', resolve)
    .once('error', reject)
    .once('close', () => reject(broken('it closed at once')));
  signal.addEventListener('abort', abort, { once: true });
  tunnel.once('close', () => signal.removeEventListener('abort', abort));
  if (signal.aborted) abort();
  call.write({ open });
  try {
    await promise;
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  }
  return tunnel;
}

class Tunnel extends Duplex {
  readonly #call: Call;
  #opened = false;
  #sentEnd = false;
  #gotEnd = false;

  constructor(call: Call) {
    super({ allowHalfOpen: true });
    this.#call = call;
    call.on('data', (frame: TunnelFrame__Output) => this.#frame(frame));
    call.on('error', (error: unknown) => {
      if (!this.#done) this.destroy(InfraletError.from(fromStatus(error, NEVER), 'UNAVAILABLE'));
    });
    call.on('end', () => {
      if (!this.#done) this.destroy(broken('the agent ended it in the middle'));
    });
  }

  /** Both sides have said all they had to; what is left of the call ends by itself. */
  get #done(): boolean {
    return this.destroyed || (this.#sentEnd && this.#gotEnd);
  }

  #frame(frame: TunnelFrame__Output): void {
    if (!this.#opened) {
      this.#opened = frame.frame === 'opened';
      if (this.#opened) this.emit('opened');
      else this.destroy(broken('the first frame was not "opened"'));
    } else if (frame.data && !this.#gotEnd) {
      notePassed(frame.data.length);
      if (frame.data.length > 0 && !this.push(frame.data)) this.#call.pause();
    } else if (frame.frame === 'end' && !this.#gotEnd) {
      this.#gotEnd = true;
      this.push(null);
      // The status still comes after it.
      this.#call.resume();
    } else {
      this.destroy(broken('a frame is out of place'));
    }
  }

  override _read(): void {
    this.#call.resume();
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: () => void): void {
    notePassed(bytes.length);
    let flowing = true;
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      flowing = this.#call.write({ data: bytes.subarray(at, at + CHUNK_BYTES) });
    }
    if (flowing) done();
    else this.#call.once('drain', done);
  }

  override _final(done: () => void): void {
    this.#sentEnd = true;
    this.#call.write({ end: {} });
    this.#call.end();
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    // After a clean end a cancellation could overtake the last bytes; the agent ends the call.
    if (error || !this.#sentEnd || !this.#gotEnd) this.#call.cancel();
    done(error);
  }
}

function broken(why: string): InfraletError {
  return new InfraletError('UNAVAILABLE', `the tunnel broke: ${why}`);
}
