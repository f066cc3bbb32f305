/** Byte streams: throughput, half-close, back-pressure, errors, and connections from the guest to the node. */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { type Duplex, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { expect, test } from 'vitest';
import { until } from '../../../src/base/time.ts';
import { AgentWorld, soon } from '../../support/agent/machine.ts';

const MIB = 1024 * 1024;

/** A TCP server in place of containerd's streaming server. */
async function server(world: AgentWorld, onSocket: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const listener = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    onSocket(socket);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  world.use({
    [Symbol.dispose]: () => {
      for (const socket of sockets) socket.destroy();
      listener.close();
    },
  });
  const address = listener.address();
  return typeof address === 'object' && address ? address.port : 0;
}

function* blocks(count: number, block: Buffer): Generator<Buffer> {
  for (let index = 0; index < count; index += 1) yield block;
}

test('64 MiB go out and come back unchanged', async () => {
  await using world = await AgentWorld.create();
  const streamingPort = await server(world, (socket) => void socket.pipe(socket));
  const { channel } = await world.enrolled({ streamingPort });
  const tunnel = await channel.openStreaming(AbortSignal.timeout(60_000));
  const block = randomBytes(MIB);
  const sent = createHash('sha256');
  const received = createHash('sha256');
  for (const part of blocks(64, block)) sent.update(part);
  const started = performance.now();
  await Promise.all([
    pipeline(Readable.from(blocks(64, block)), tunnel, { end: true }),
    (async () => {
      for await (const bytes of tunnel as AsyncIterable<Buffer>) received.update(bytes);
    })(),
  ]);
  const seconds = (performance.now() - started) / 1000;
  console.log(`tunnel: ${(64 / seconds).toFixed(0)} MiB/s each way, both ways at once`);
  expect(received.digest('hex')).toBe(sent.digest('hex'));
});

test('half-close: the guest hears the end and can still answer', async () => {
  await using world = await AgentWorld.create();
  const streamingPort = await server(world, (socket) => {
    void buffer(socket).then((all) => socket.end(`heard ${all.toString()}`));
  });
  const { channel } = await world.enrolled({ streamingPort });
  const tunnel = await channel.openStreaming(AbortSignal.timeout(10_000));
  tunnel.end('all of it');
  expect((await buffer(tunnel)).toString()).toBe('heard all of it');
});

test('half-close the other way: the guest ends first and still hears', async () => {
  await using world = await AgentWorld.create();
  const heard = Promise.withResolvers<string>();
  const streamingPort = await server(world, (socket) => {
    socket.end('bye');
    void buffer(socket).then((all) => heard.resolve(all.toString()));
  });
  const { channel } = await world.enrolled({ streamingPort });
  const tunnel = await channel.openStreaming(AbortSignal.timeout(10_000));
  expect((await buffer(tunnel)).toString()).toBe('bye');
  tunnel.end('and good bye');
  expect(await heard.promise).toBe('and good bye');
});

test('a reader that is slow stops the writer: memory stays bounded on both sides', async () => {
  await using world = await AgentWorld.create();
  let written = 0;
  const streamingPort = await server(world, (socket) => {
    const block = Buffer.alloc(MIB);
    const more = (): void => {
      while (written < 512 * MIB) {
        written += block.length;
        if (!socket.write(block)) {
          socket.once('drain', more);
          return;
        }
      }
    };
    more();
  });
  const { channel } = await world.enrolled({ streamingPort });
  const before = Number((await channel.status(soon())).agentResidentBytes);
  const tunnel = await channel.openStreaming(AbortSignal.timeout(60_000));
  // Nobody reads. The writer comes to a stop.
  let last = -1;
  await until(
    () => {
      const still = written === last;
      last = written;
      return still || undefined;
    },
    { everyMs: 300, signal: AbortSignal.timeout(20_000) },
  );
  expect(written).toBeLessThan(64 * MIB);
  const after = Number((await channel.status(soon())).agentResidentBytes);
  expect(after - before).toBeLessThan(32 * MIB);
  tunnel.destroy();
});

test('a guest that does not read stops the daemon’s writer', async () => {
  await using world = await AgentWorld.create();
  const streamingPort = await server(world, (socket) => void socket.pause());
  const { channel } = await world.enrolled({ streamingPort });
  const tunnel = await channel.openStreaming(AbortSignal.timeout(60_000));
  let taken = 0;
  const block = Buffer.alloc(MIB);
  while (taken < 512 && tunnel.write(block)) taken += 1;
  let stalled = false;
  while (!stalled && taken < 512) {
    stalled = await once(tunnel, 'drain', { signal: AbortSignal.timeout(500) }).then(
      () => false,
      () => true,
    );
    if (!stalled) {
      tunnel.write(block);
      taken += 1;
    }
  }
  expect(stalled).toBe(true);
  expect(taken).toBeLessThan(64);
  tunnel.destroy();
});

test('an end of one side in the middle ends the other', async () => {
  await using world = await AgentWorld.create();
  const sockets: Socket[] = [];
  const streamingPort = await server(world, (socket) => void sockets.push(socket));
  const { machine, channel } = await world.enrolled({ streamingPort });
  const open = async (): Promise<[Duplex, Socket]> => {
    const count = sockets.length;
    const tunnel = await channel.openStreaming(AbortSignal.timeout(20_000));
    const socket = await until(() => sockets[count], { everyMs: 5, signal: AbortSignal.timeout(5000) });
    return [tunnel, socket];
  };
  const failure = async (tunnel: Duplex): Promise<unknown> => {
    const [error] = (await once(tunnel, 'error')) as [unknown];
    return error;
  };

  const [reset, peer] = await open();
  const broken = failure(reset);
  peer.resetAndDestroy();
  expect(await broken).toMatchObject({ code: 'UNAVAILABLE' });

  // A reset, so that the program there does not take what it has for all.
  const [left, abandoned] = await open();
  const hears = once(abandoned.resume(), 'close');
  left.destroy();
  await expect(hears).rejects.toMatchObject({ code: 'ECONNRESET' });

  const aborter = new AbortController();
  const [aborted, second] = [await channel.openStreaming(aborter.signal), sockets];
  const cancelled = failure(aborted);
  aborter.abort();
  expect(await cancelled).toMatchObject({ code: 'CANCELLED' });
  expect(second.length).toBeGreaterThan(0);

  const [killed] = await open();
  const dead = failure(killed);
  await machine.kill();
  expect(await dead).toMatchObject({ code: 'UNAVAILABLE' });
});

test('a tunnel to nobody is UNAVAILABLE', async () => {
  await using world = await AgentWorld.create();
  const { channel } = await world.enrolled();
  await expect(channel.openStreaming(AbortSignal.timeout(10_000))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

test('incoming: programs in the guest reach the node’s service, also after the agent was killed', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const stop = new AbortController();
  const serving = channel.serveIncoming(
    'images',
    (socket) => {
      void buffer(socket).then((all) => socket.end(`node says: ${all.toString().toUpperCase()}`));
    },
    stop.signal,
  );
  const ask = async (text: string): Promise<string> => {
    const socket = connect({ host: '127.0.0.1', port: machine.imagesPort, allowHalfOpen: true });
    socket.end(text);
    return (await buffer(socket)).toString();
  };
  expect(await Promise.all(['a', 'b', 'c', 'd'].map(ask))).toEqual(
    ['A', 'B', 'C', 'D'].map((letter) => `node says: ${letter}`),
  );
  await machine.kill();
  await machine.start();
  // Asked before the daemon listens again: the connection waits for it.
  expect(await ask('again')).toBe('node says: AGAIN');
  stop.abort();
  await serving;
});

test('incoming: connections that nobody takes are bounded', async () => {
  await using world = await AgentWorld.create();
  const { machine } = await world.enrolled();
  let refused = 0;
  const sockets = Array.from({ length: 80 }, () => {
    const socket = connect({ host: '127.0.0.1', port: machine.imagesPort });
    socket.on('error', () => undefined).on('close', () => (refused += 1));
    return socket.resume();
  });
  world.use({ [Symbol.dispose]: () => sockets.forEach((socket) => void socket.destroy()) });
  await until(() => refused === 16 || undefined, { everyMs: 20, signal: AbortSignal.timeout(10_000) });
});
