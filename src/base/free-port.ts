import { once } from 'node:events';
import { createServer } from 'node:net';
import { InfraletError } from './errors.ts';

/** A TCP port of loopback that nobody listened on a moment ago; whoever binds it must be ready to lose it. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new InfraletError('INTERNAL', 'no port was bound');
  return address.port;
}
