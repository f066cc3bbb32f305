/** Port-forward for clients that put SPDY into WebSocket messages: unwrapped, they are what containerd's server speaks. */
import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import { closed, INTERNAL_ERROR, messageBytes, NORMAL_CLOSURE, Outlet, UNSUPPORTED_DATA } from './websocket.ts';

/** The subprotocol towards the guest. */
export const PORT_FORWARD = 'portforward.k8s.io';

/** Passes bytes until the client's connection is closed. */
export async function serveTunnelledPorts(client: WebSocket, guest: Duplex): Promise<void> {
  const outlet = new Outlet(client, guest);
  client.on('message', (data, binary) => {
    if (!binary) client.close(UNSUPPORTED_DATA, 'SPDY frames are binary');
    else if (guest.writable && !guest.write(messageBytes(data))) client.pause();
  });
  client.once('close', () => guest.end());
  guest.on('drain', () => client.resume());
  guest.on('data', (chunk: Buffer) => outlet.send(chunk));
  const end = (code: number): void => {
    // A client that was told to wait would not see our goodbye answered.
    client.resume();
    client.close(code);
  };
  guest.on('end', () => end(NORMAL_CLOSURE));
  guest.on('error', () => end(INTERNAL_ERROR));
  guest.on('close', () => end(INTERNAL_ERROR));
  guest.resume();
  client.resume();
  await closed(client);
}
