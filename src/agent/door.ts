/**
 * The agent's TCP port, open before there is anybody to answer: connections wait unread until the door is served. In a
 * template the first knock is how the agent learns that it has become a clone.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { InfraletError } from '../base/errors.ts';
import type { RefusalLog } from './log.ts';
import { LIMITS } from './options.ts';

export class Door {
  readonly #server: Server;
  readonly #waiting = new Set<Socket>();
  #knock = Promise.withResolvers<void>();
  #onConnection: ((socket: Socket) => void) | undefined;

  private constructor(server: Server) {
    this.#server = server;
    server.on('connection', (socket: Socket) => {
      if (this.#onConnection) this.#onConnection(socket);
      else this.#wait(socket);
    });
  }

  static async open(host: string, port: number, refusals: RefusalLog): Promise<Door> {
    const server = createServer({ pauseOnConnect: true, noDelay: true });
    server.maxConnections = LIMITS.connections;
    server.on('drop', () => refusals.refuse('too many connections', { limit: LIMITS.connections }));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onError = (error: Error): void =>
      reject(new InfraletError('UNAVAILABLE', `cannot listen on ${host}:${port}: ${error.message}`, { cause: error }));
    server.once('error', onError);
    server.listen(port, host, () => {
      server.off('error', onError);
      resolve();
    });
    const door = new Door(server);
    await promise;
    return door;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address ? address.port : 0;
  }

  /** Resolves when somebody waits at the door. */
  async knocked(): Promise<void> {
    if (this.#waiting.size === 0) await this.#knock.promise;
  }

  /** Sends those who wait away. */
  dismiss(): void {
    for (const socket of this.#waiting) socket.destroy();
    this.#waiting.clear();
  }

  /** Those who wait first, then everyone who comes. */
  serve(onConnection: (socket: Socket) => void): void {
    this.#onConnection = onConnection;
    for (const socket of this.#waiting) onConnection(socket);
    this.#waiting.clear();
  }

  #wait(socket: Socket): void {
    this.#waiting.add(socket);
    socket.once('error', () => socket.destroy());
    socket.once('close', () => this.#waiting.delete(socket));
    this.#knock.resolve();
    this.#knock = Promise.withResolvers<void>();
  }
}
