/** A TCP proxy before a registry that cuts or changes what passes, as broken networks and caches do. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

export type Fault =
  | { readonly kind: 'none' }
  /** The connection breaks after this many bytes from the registry. */
  | { readonly kind: 'cut'; readonly afterBytes: number }
  /** From this many bytes on, every byte is another one. */
  | { readonly kind: 'corrupt'; readonly afterBytes: number }
  /** Nothing more comes after this many bytes, and the connection stays open. */
  | { readonly kind: 'stall'; readonly afterBytes: number };

export interface FaultyProxy extends AsyncDisposable {
  readonly host: string;
  /** Sets what connections suffer from now on; resolves when the first ran into it. */
  inflict(fault: Fault): Promise<void>;
}

export async function startFaultyProxy(upstream: string): Promise<FaultyProxy> {
  const [address = '', port = ''] = upstream.split(':');
  const sockets = new Set<Socket>();
  let fault: Fault = { kind: 'none' };
  let struck = Promise.withResolvers<void>();
  const server = createServer((client) => {
    const mine = fault;
    const registry = connect(Number(port), address);
    for (const socket of [client, registry]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.once('close', () => {
        sockets.delete(socket);
        client.destroy();
        registry.destroy();
      });
    }
    client.pipe(registry);
    let passed = 0;
    registry.on('data', (chunk) => {
      passed += chunk.length;
      if (mine.kind === 'none' || passed <= mine.afterBytes) {
        client.write(chunk);
        return;
      }
      struck.resolve();
      if (mine.kind === 'cut') client.destroy();
      else if (mine.kind === 'stall') registry.pause();
      else client.write(chunk.map((byte) => byte ^ 0x55));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  if (bound === null || typeof bound === 'string') throw new Error('the proxy has no port');
  return {
    host: `127.0.0.1:${bound.port}`,
    inflict: async (next) => {
      fault = next;
      struck = Promise.withResolvers<void>();
      await struck.promise;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
