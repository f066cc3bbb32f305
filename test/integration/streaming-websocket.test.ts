/** The WebSocket subprotocols that end on the node: v5 channels and tunnelled ports become SPDY towards the guest. */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { until } from '../../src/base/time.ts';
import type { StreamingServer } from '../../src/streaming/server.ts';
import type { SessionStreams } from '../../src/streaming/tokens.ts';
import { runStream } from '../support/cri-streams.ts';
import { type RemoteCommand, serveRemoteCommand } from '../support/remote-command.ts';
import { SpdyServer } from '../support/spdy-server.ts';
import { type StreamingGuest, startStreamingGuest } from '../support/streaming-guest.ts';
import { eventually, soon, startStreaming } from '../support/streaming-node.ts';
import { openTunnel } from '../support/websocket-tunnel.ts';

const V5 = 'v5.channel.k8s.io';
const PLAIN: SessionStreams = { tty: false, stdin: true, stdout: true, stderr: true };
const TERMINAL: SessionStreams = { tty: true, stdin: true, stdout: true, stderr: false };

let guest: StreamingGuest;
let server: StreamingServer;
beforeEach(async () => {
  guest = await startStreamingGuest();
  server = await startStreaming();
});
afterEach(async () => {
  await server[Symbol.asyncDispose]();
  await guest[Symbol.asyncDispose]();
});

const issue = (streams = PLAIN, from = server) =>
  from.issue('exec', async () => ({ ...guest.target('/exec/guest-token'), streams }));

/** Resolves when the count is the same in 40 looks in a row: all buffers on the way are full. */
async function standsStill(count: () => number): Promise<void> {
  let last = -1;
  let still = 0;
  await until(
    () => {
      const now = count();
      still = now === last ? still + 1 : 0;
      last = now;
      return still >= 40 ? true : undefined;
    },
    { everyMs: 10, signal: soon() },
  );
}

/** Serves the next SPDY session as a command; both kinds of session have four streams. */
async function command(onInput?: (command: RemoteCommand, text: Buffer) => void) {
  const served = Promise.withResolvers<RemoteCommand>();
  guest.onSpdy = (socket, head) => {
    void serveRemoteCommand(socket, head, 4, onInput).then(served.resolve, served.reject);
  };
  return served.promise;
}

interface Client {
  readonly socket: WebSocket;
  readonly received: Buffer[];
  /** Everything of one channel so far. */
  text(channel: number): string;
  readonly closed: Promise<number>;
}

function dial(url: string, protocols: readonly string[] = [V5]): Client {
  const socket = new WebSocket(url.replace(/^http/, 'ws'), [...protocols]);
  const received: Buffer[] = [];
  const closed = Promise.withResolvers<number>();
  socket.on('message', (data: Buffer) => received.push(data));
  socket.on('error', (error) => closed.reject(error));
  socket.on('close', (code) => closed.resolve(code));
  closed.promise.catch(() => undefined);
  return {
    socket,
    received,
    text: (channel) => Buffer.concat(received.filter(([at]) => at === channel).map((m) => m.subarray(1))).toString(),
    closed: closed.promise,
  };
}

const quiet = async (): Promise<void> => {
  await eventually(() => server.sessions === 0 && guest.connections.size === 0);
};

describe('v5 channels', () => {
  test.each([0, 3])('a command with input, both outputs and exit code %i', async (code) => {
    const served = command((it, text) => {
      it.out('stdout', `read ${text.toString()}`);
      it.out('stderr', 'problem');
      it.exit(code);
    });
    const result = await runStream(issue(), { stdin: 'line', protocols: [V5, 'v4.channel.k8s.io'] });
    expect({ ...result, stdout: result.stdout.toString(), stderr: result.stderr.toString() }).toMatchObject({
      stdout: 'read line',
      stderr: 'problem',
      exitCode: code,
    });
    const { streams } = await served;
    expect([...streams.keys()]).toEqual(['error', 'stdin', 'stdout', 'stderr']);
    expect([...streams.values()].map(({ id }) => id)).toEqual([1, 3, 5, 7]);
    const [request] = guest.requests;
    expect(request).toMatchObject({ method: 'POST', url: '/exec/guest-token' });
    expect(request?.headers).toMatchObject({ upgrade: 'SPDY/3.1', 'x-stream-protocol-version': 'v4.channel.k8s.io' });
    expect(Object.keys(request?.headers ?? {}).filter((name) => name.startsWith('sec-'))).toEqual([]);
    await quiet();
  });

  test('the end of stdin arrives while output goes on', async () => {
    const served = command();
    const client = dial(issue());
    const it = await served;
    client.socket.send(Buffer.from('\0all of it'));
    client.socket.send(Buffer.of(255, 0));
    await eventually(() => it.stdinEnded());
    expect(it.stdin().toString()).toBe('all of it');
    // What comes after the end is dropped.
    client.socket.send(Buffer.from('\0more'));
    it.out('stdout', 'after the end');
    it.exit(0);
    expect(await client.closed).toBe(1000);
    expect(client.text(1)).toBe('after the end');
    expect(it.stdin().toString()).toBe('all of it');
  });

  test('a terminal: sizes arrive, there is no stderr', async () => {
    const served = command();
    const client = dial(issue(TERMINAL));
    await once(client.socket, 'open', { signal: soon() });
    client.socket.send(Buffer.from('\u0004{"Width":132,"Height":43}'));
    const it = await served;
    expect([...it.streams.keys()]).toEqual(['error', 'stdin', 'stdout', 'resize']);
    await eventually(() => it.sizes.length === 1);
    expect(it.sizes).toEqual(['{"Width":132,"Height":43}']);
    it.exit(0);
    expect(await client.closed).toBe(1000);
  });

  test('empty messages, unknown channels and outputs written by the client are dropped; text is refused', async () => {
    const served = command();
    const client = dial(issue());
    const it = await served;
    for (const bytes of [[], [0], [9, 65], [1, 65], [3, 65], [255], [255, 7], [4, 65]])
      client.socket.send(Buffer.from(bytes));
    client.socket.send(Buffer.from('\0still here'));
    await eventually(() => it.stdin().length > 0);
    expect(it.stdin().toString()).toBe('still here');
    client.socket.send('text');
    expect(await client.closed).toBe(1003);
    await eventually(() => it.gone());
    await quiet();
  });

  test('pings are answered on both sides', async () => {
    const served = command();
    const client = dial(issue());
    const it = await served;
    client.socket.ping('are you there');
    const [pong] = await once(client.socket, 'pong', { signal: soon() });
    expect(String(pong)).toBe('are you there');
    it.server.ping(2);
    await eventually(() => it.pongs.length === 1);
    expect(it.pongs).toEqual([2]);
    it.exit(0);
    await client.closed;
  });

  test('a message that is too long ends the session', async () => {
    await using small = await startStreaming({ maxMessage: '64Ki' });
    const served = command();
    const client = dial(issue(PLAIN, small));
    const it = await served;
    client.socket.send(Buffer.alloc(65_536));
    await eventually(() => it.stdin().length === 65_535);
    client.socket.send(Buffer.alloc(65_537));
    expect(await client.closed).toBe(1009);
    await eventually(() => small.sessions === 0 && guest.connections.size === 0);
  });

  test('16 MiB each way, unharmed', async () => {
    const served = command((it, bytes) => {
      if (it.out('stdout', bytes) || it.server.socket.isPaused()) return;
      it.server.socket.pause();
      it.server.socket.once('drain', () => it.server.socket.resume());
    });
    const client = dial(issue());
    const it = await served;
    client.socket.removeAllListeners('message');
    const block = Buffer.concat([Buffer.of(0), Buffer.alloc(256 * 1024, 'infralet!')]);
    const total = 64 * (block.length - 1);
    let back = 0;
    let wrong = 0;
    client.socket.on('message', (data: Buffer) => {
      for (const at of [1, data.length - 1]) {
        if (data.length > 1 && data[at] !== block[1 + ((back + at - 1) % (block.length - 1))]) wrong += 1;
      }
      back += data.length - 1;
    });
    for (let sent = 0; sent < total; sent += block.length - 1) {
      const { promise, resolve } = Promise.withResolvers<void>();
      client.socket.send(block, () => resolve());
      await promise;
    }
    await eventually(() => back === total);
    expect(wrong).toBe(0);
    it.exit(0);
    expect(await client.closed).toBe(1000);
  });

  test('a client that does not read stops the guest; the rest comes when it reads on', async () => {
    const served = command();
    const client = dial(issue());
    const it = await served;
    await eventually(() => client.received.length > 0);
    client.socket.pause();
    const block = Buffer.alloc(64 * 1024, 'x');
    const most = 64 * 1024 * 1024;
    let written = 0;
    const pump = (): void => {
      while (written < most) {
        written += block.length;
        if (!it.out('stdout', block)) {
          it.server.socket.once('drain', pump);
          return;
        }
      }
      it.exit(0);
    };
    pump();
    await standsStill(() => written);
    expect(written).toBeLessThan(most / 2);
    client.socket.resume();
    expect(await client.closed).toBe(1000);
    expect(client.text(1).length).toBe(most);
  });

  test('a hundred sessions at once do not mix', async () => {
    guest.onSpdy = (socket, head) => {
      void serveRemoteCommand(socket, head, 4, (it, text) => {
        it.out('stdout', `read ${text.toString()}`);
        it.exit(Number(text.toString()));
      });
    };
    const numbers = Array.from({ length: 100 }, (_, n) => n + 1);
    const results = await Promise.all(
      numbers.map(async (n) => runStream(issue(), { stdin: String(n), protocols: [V5] })),
    );
    expect(results.map(({ stdout, exitCode }) => [stdout.toString(), exitCode])).toEqual(
      numbers.map((n) => [`read ${n}`, n]),
    );
    await quiet();
  });

  test('a guest that does not read stops the client', async () => {
    const served = command();
    const client = dial(issue());
    const it = await served;
    await eventually(() => client.received.length > 0);
    it.server.socket.removeAllListeners('data');
    it.server.socket.pause();
    const block = Buffer.alloc(1024 * 1024);
    let sent = 0;
    const feed = (): void => {
      if (client.socket.bufferedAmount >= block.length || sent >= 200) return;
      client.socket.send(block);
      sent += 1;
    };
    await standsStill(() => {
      feed();
      return sent;
    });
    expect(sent).toBeLessThan(40);
    client.socket.terminate();
    // What it sent is still on its way to a guest that does not take it; the connection there is cut in the end.
    for (const socket of guest.connections) socket.resetAndDestroy();
    await quiet();
  });

  test('a client that vanishes takes its session along', async () => {
    const served = command();
    const client = dial(issue());
    const it = await served;
    expect(server.sessions).toBe(1);
    client.socket.terminate();
    await eventually(() => it.gone() && it.stdinEnded());
    await quiet();
  });

  test.each([
    ['dies', (it: RemoteCommand) => it.server.socket.destroy()],
    ['ends without a result', (it: RemoteCommand) => it.server.socket.end()],
    ['ends its streams without a result', (it: RemoteCommand) => void [1, 5, 7].map((id) => it.server.reset(id))],
    ['talks nonsense', (it: RemoteCommand) => it.server.socket.write(Buffer.alloc(64, 0xff))],
  ])('a guest that %s is reported as a failed command', async (_how, act) => {
    const served = command();
    const client = dial(issue());
    const it = await served;
    it.out('stdout', 'half of');
    await eventually(() => client.text(1) === 'half of');
    act(it);
    expect(await client.closed).toBe(1000);
    expect(JSON.parse(client.text(3))).toMatchObject({
      status: 'Failure',
      reason: 'InternalError',
      message: expect.stringContaining('machine'),
    });
    await quiet();
  });

  test('a guest that refuses the session is quoted before there is a WebSocket', async () => {
    guest.refuse = 'container is not running';
    const client = dial(issue());
    await expect(client.closed).rejects.toThrow('Unexpected server response: 502');
    expect(server.sessions).toBe(0);
  });

  test('a handshake that is none', async () => {
    const served = command();
    const url = new URL(issue());
    const answer = await fetch(url, { headers: { 'Sec-WebSocket-Protocol': V5 } });
    expect(answer.status).toBe(400);
    const { request } = await import('node:http');
    const broken = request(url, {
      headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Protocol': V5, 'Sec-WebSocket-Key': 'x' },
    });
    broken.end();
    const [response] = await once(broken, 'response', { signal: soon() });
    expect(response.statusCode).toBe(400);
    response.resume();
    guest.onSpdy = () => undefined;
    void served;
    await quiet();
  });
});

describe('tunnelled ports', () => {
  const ports = () => server.issue('portforward', async () => guest.target('/portforward/guest-token'));

  test('bytes of SPDY pass both ways, whatever the messages', async () => {
    const { stream, code } = await openTunnel(ports());
    const received: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => received.push(chunk));
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, n) => n % 251));
    const cuts = [0, 1, 9, 40_000, 120_000, bytes.length];
    for (const [index, from] of cuts.entries()) {
      if (index < cuts.length - 1) stream.write(bytes.subarray(from, cuts[index + 1]));
    }
    await eventually(() => Buffer.concat(received).length === bytes.length);
    expect(Buffer.concat(received)).toEqual(bytes);
    expect(guest.requests[0]).toMatchObject({ method: 'POST', url: '/portforward/guest-token' });
    expect(guest.requests[0]?.headers).toMatchObject({
      upgrade: 'SPDY/3.1',
      'x-stream-protocol-version': 'portforward.k8s.io',
    });
    stream.end();
    await eventually(() => code() === 1000);
    await quiet();
  });

  test('the end of the guest is a normal closure, its death is none', async () => {
    guest.onSpdy = (socket, head) => {
      const spdy = new SpdyServer(socket, head, { data: () => socket.end() });
      spdy.ping(2);
    };
    const first = await openTunnel(ports());
    await once(first.stream, 'data', { signal: soon() });
    first.stream.write(Buffer.from([0, 0, 0, 1, 0, 0, 0, 1, 65]));
    await eventually(() => first.code() === 1000);
    guest.onSpdy = (socket) => socket.once('data', () => (socket as Socket).resetAndDestroy());
    const second = await openTunnel(ports());
    second.stream.on('error', () => undefined).resume();
    second.stream.write('x');
    await eventually(() => second.code() === 1011);
    first.stream.destroy();
    second.stream.destroy();
    await quiet();
  });

  test('text is refused', async () => {
    const tunnel = await openTunnel(ports());
    tunnel.stream.resume();
    tunnel.send(1, Buffer.from('text'));
    await eventually(() => tunnel.code() === 1003);
    tunnel.stream.destroy();
    await quiet();
  });
});
