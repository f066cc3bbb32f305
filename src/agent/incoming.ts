/**
 * `Incoming`: connections that programs in the machine open towards the node. The agent accepts them, announces each to
 * the daemon by a number, and hands it to the Tunnel that names the number; what nobody asks for in time is closed.
 */
import { createServer, type Server, type Socket } from 'node:net';
import type { ServerWritableStream } from '@grpc/grpc-js';
import { InfraletError } from '../base/errors.ts';
import type { IncomingConnection } from '../gen/infralet/agent/v1/IncomingConnection.ts';
import type { IncomingRequest__Output } from '../gen/infralet/agent/v1/IncomingRequest.ts';
import type { Logger } from '../telemetry/log.ts';
import { LIMITS } from './options.ts';

type Announcer = ServerWritableStream<IncomingRequest__Output, IncomingConnection>;

interface Pending {
  readonly socket: Socket;
  readonly timer: NodeJS.Timeout;
}

export class IncomingQueue implements Disposable {
  readonly #server: Server;
  readonly #log: Logger;
  readonly #pending = new Map<string, Pending>();
  #announcer: Announcer | undefined;
  #last = 0;

  constructor(log: Logger) {
    this.#log = log;
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) =>
      this.#accept(socket),
    );
  }

  /** The port; 0 when it is taken: logged, and image pulls are without service while everything else goes on. */
  async listen(host: string, port: number): Promise<number> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.on('error', (error) => {
      this.#log.error('cannot serve the images port', { error, host, port });
      resolve();
    });
    this.#server.listen(port, host, resolve);
    await promise;
    const address = this.#server.address();
    return typeof address === 'object' && address ? address.port : 0;
  }

  /** The newest listener of the daemon gets the announcements, beginning with those that wait. */
  announceTo(call: Announcer): void {
    if (call.request.service !== 'images') {
      throw new InfraletError('NOT_FOUND', `there is no service ${JSON.stringify(call.request.service.slice(0, 64))}`);
    }
    this.#announcer?.end();
    this.#announcer = call;
    const leave = (): void => {
      if (this.#announcer === call) this.#announcer = undefined;
    };
    call.on('cancelled', leave);
    call.on('close', leave);
    call.on('error', leave);
    for (const id of this.#pending.keys()) call.write({ id });
  }

  /** The connection of that number, paused; each can be taken once. */
  take(id: string): Socket {
    const pending = this.#pending.get(id);
    if (!pending) throw new InfraletError('NOT_FOUND', `no connection ${id.slice(0, 24)} waits`);
    this.#forget(id);
    return pending.socket;
  }

  #accept(socket: Socket): void {
    if (this.#pending.size >= LIMITS.incomingPending) {
      this.#log.warn('a connection to the node is refused: too many wait', { limit: LIMITS.incomingPending });
      socket.destroy();
      return;
    }
    this.#last += 1;
    const id = String(this.#last);
    const timer = setTimeout(() => {
      this.#forget(id);
      socket.destroy();
      this.#log.warn('a connection to the node was not taken in time', { waitedMs: LIMITS.incomingWaitMs });
    }, LIMITS.incomingWaitMs);
    this.#pending.set(id, { socket, timer });
    socket.once('error', () => socket.destroy());
    socket.once('close', () => this.#forget(id));
    this.#announcer?.write({ id });
  }

  #forget(id: string): void {
    clearTimeout(this.#pending.get(id)?.timer);
    this.#pending.delete(id);
  }

  [Symbol.dispose](): void {
    this.#server.close();
    for (const { socket } of this.#pending.values()) socket.destroy();
  }
}
