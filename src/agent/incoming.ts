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

/** Images, and the shares of the node's directories. */
const SERVICE = /^(images|share\/[0-9a-f]{32})$/;

interface Pending {
  readonly service: string;
  readonly socket: Socket;
  readonly timer: NodeJS.Timeout;
}

export class IncomingQueue implements Disposable {
  readonly #servers: Server[] = [];
  readonly #log: Logger;
  readonly #pending = new Map<string, Pending>();
  readonly #announcers = new Map<string, Announcer>();
  /** Who takes a service's connections instead of the daemon. */
  readonly #diverted = new Map<string, (socket: Socket) => void>();
  #last = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** The port; 0 when it is taken: logged, and the service is not there while everything else goes on. */
  async listen(service: string, host: string, port: number): Promise<number> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) =>
      this.#accept(service, socket),
    );
    this.#servers.push(server);
    const { promise, resolve } = Promise.withResolvers<void>();
    server.on('error', (error) => {
      this.#log.error('cannot serve a port of the machine', { service, error, host, port });
      resolve();
    });
    server.listen(port, host, resolve);
    await promise;
    const address = server.address();
    return typeof address === 'object' && address ? address.port : 0;
  }

  /** The newest listener of the daemon gets the announcements, beginning with those that wait. */
  announceTo(call: Announcer): void {
    const { service } = call.request;
    const full = !this.#announcers.has(service) && this.#announcers.size >= LIMITS.incomingServices;
    if (!SERVICE.test(service) || full) {
      throw new InfraletError('NOT_FOUND', `there is no service ${JSON.stringify(service.slice(0, 64))}`);
    }
    this.#announcers.get(service)?.end();
    this.#announcers.set(service, call);
    const leave = (): void => {
      if (this.#announcers.get(service) === call) this.#announcers.delete(service);
    };
    call.on('cancelled', leave);
    call.on('close', leave);
    call.on('error', leave);
    for (const [id, pending] of this.#pending) if (pending.service === service) call.write({ id });
  }

  /** Hands a service's connections to `onConnection`, paused, until it is disposed of: then they end. */
  divert(service: string, onConnection: (socket: Socket) => void): Disposable {
    const open = new Set<Socket>();
    this.#diverted.set(service, (socket) => {
      open.add(socket);
      socket.once('close', () => open.delete(socket));
      onConnection(socket);
    });
    return {
      [Symbol.dispose]: () => {
        this.#diverted.delete(service);
        for (const socket of open) socket.destroy();
      },
    };
  }

  /** The connection of that number, paused; each can be taken once. */
  take(id: string): Socket {
    const pending = this.#pending.get(id);
    if (!pending) throw new InfraletError('NOT_FOUND', `no connection ${id.slice(0, 24)} waits`);
    this.#forget(id);
    return pending.socket;
  }

  #accept(service: string, socket: Socket): void {
    const diverted = this.#diverted.get(service);
    if (diverted) {
      diverted(socket);
      return;
    }
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
    this.#pending.set(id, { service, socket, timer });
    socket.once('error', () => socket.destroy());
    socket.once('close', () => this.#forget(id));
    this.#announcers.get(service)?.write({ id });
  }

  #forget(id: string): void {
    clearTimeout(this.#pending.get(id)?.timer);
    this.#pending.delete(id);
  }

  [Symbol.dispose](): void {
    for (const server of this.#servers) server.close();
    for (const { socket } of this.#pending.values()) socket.destroy();
  }
}
