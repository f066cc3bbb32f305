/** Stands for the tunnel: a loopback port whose connections are handed to the image service as one sandbox's. */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { SandboxId } from '../../src/base/ids.ts';
import type { ImageService } from '../../src/image/service.ts';

export async function listenForGuest(
  images: ImageService,
  sandboxId: SandboxId,
): Promise<AsyncDisposable & { readonly host: string }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    // The tunnel is no net.Socket: no setTimeout, no remoteAddress. Whoever needs those must fail here.
    const tunnel = new Duplex({
      read: () => void socket.resume(),
      write: (chunk, _encoding, done) => void socket.write(chunk, done),
      final: (done) => void socket.end(done),
      destroy: (error, done) => {
        socket.destroy();
        done(error);
      },
    });
    socket.on('data', (chunk) => {
      if (!tunnel.push(chunk)) socket.pause();
    });
    socket.on('end', () => void tunnel.push(null));
    socket.on('error', () => tunnel.destroy());
    socket.on('close', () => {
      sockets.delete(socket);
      tunnel.destroy();
    });
    images.serveGuest(sandboxId, tunnel);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the listener has no port');
  return {
    host: `127.0.0.1:${address.port}`,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
