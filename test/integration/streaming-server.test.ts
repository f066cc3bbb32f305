import { once } from 'node:events';
import { mkdtemp, open as openFile, readFile, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { InfraletError } from '../../src/base/errors.ts';
import { until } from '../../src/base/time.ts';
import type { StreamingServer } from '../../src/streaming/server.ts';
import { createLogger } from '../../src/telemetry/log.ts';
import { forwardedPort, runStream } from '../support/cri-streams.ts';
import { type StreamingGuest, startStreamingGuest } from '../support/streaming-guest.ts';
import { eventually, soon, startStreaming } from '../support/streaming-node.ts';

const UPGRADE = 'Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n';

/** A raw client that has sent a request head. */
function dial(url: string, headers = UPGRADE, more: string | Uint8Array = ''): Socket {
  const { hostname, port, pathname } = new URL(url);
  const socket = connect({ port: Number(port), host: hostname, allowHalfOpen: true });
  socket.on('error', () => undefined);
  socket.write(
    Buffer.concat([Buffer.from(`POST ${pathname} HTTP/1.1\r\nHost: node\r\n${headers}\r\n`), Buffer.from(more)]),
  );
  return socket;
}

/** Waits for the end of a connection that the other side cuts. */
async function cut(socket: Socket): Promise<void> {
  socket.on('end', () => socket.end());
  socket.resume();
  if (!socket.closed) await once(socket, 'close', { signal: soon() });
}

/** Everything until the server ends. */
async function answerOf(socket: Socket): Promise<string> {
  const parts: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => parts.push(chunk));
  socket.on('end', () => socket.end());
  await once(socket, 'close', { signal: soon() });
  return Buffer.concat(parts).toString('latin1');
}

/** Reads until the head of the answer is complete; returns it, and puts the rest back. */
async function readHead(socket: Socket): Promise<string> {
  let held = Buffer.alloc(0);
  for await (const chunk of readable(socket)) {
    held = Buffer.concat([held, chunk]);
    const end = held.indexOf('\r\n\r\n');
    if (end < 0) continue;
    if (held.length > end + 4) socket.unshift(held.subarray(end + 4));
    return held.subarray(0, end).toString();
  }
  throw new Error(`no head: ${held.toString()}`);
}

async function* readable(socket: Socket): AsyncGenerator<Buffer> {
  for (;;) {
    const chunk: Buffer | null = socket.read();
    if (chunk) yield chunk;
    else if (socket.readableEnded || socket.destroyed) return;
    else await Promise.race([once(socket, 'readable', { signal: soon() }), once(socket, 'close', { signal: soon() })]);
  }
}

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

const issue = (kind: 'exec' | 'attach' | 'portforward' = 'exec') => server.issue(kind, async () => guest.target());

describe('SPDY', () => {
  test('the request goes on with its headers; bytes pass untouched both ways', async () => {
    const early = Buffer.from([0x80, 0x03, 0x00, 0x01, 0x0d, 0x0a, 0xff]);
    const client = dial(issue(), `${UPGRADE}Authorization: Bearer secret\r\n`, early);
    expect(await readHead(client)).toBe(
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-From: guest',
    );
    const bytes = Buffer.concat([early, Buffer.from(Array.from({ length: 256 }, (_, n) => n))]);
    client.write(bytes.subarray(early.length));
    let seen = Buffer.alloc(0);
    client.on('data', (chunk: Buffer) => {
      seen = Buffer.concat([seen, chunk]);
    });
    await eventually(() => seen.length === bytes.length);
    expect(seen).toEqual(bytes);
    const [request] = guest.requests;
    expect(request).toMatchObject({ method: 'POST', url: '/exec/guest-token' });
    expect(request?.headers).toMatchObject({
      host: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
      upgrade: 'SPDY/3.1',
      'x-stream-protocol-version': 'v4.channel.k8s.io',
    });
    expect(request?.headers).not.toHaveProperty('authorization');
    expect(server.sessions).toBe(1);
    client.destroy();
    await eventually(() => server.sessions === 0 && guest.connections.size === 0);
  });

  test('an end passes on, and the other direction goes on to its own', async () => {
    const received: Buffer[] = [];
    guest.onSpdy = (socket) => {
      socket.on('data', (chunk: Buffer) => received.push(chunk));
      socket.on('end', () => socket.end('after your end'));
    };
    const client = dial(issue());
    await readHead(client);
    client.end('last words');
    expect(await answerOf(client)).toBe('after your end');
    expect(Buffer.concat(received).toString()).toBe('last words');
    await eventually(() => server.sessions === 0 && guest.connections.size === 0);
  });

  test('all that the guest wrote arrives before its end does', async () => {
    const size = 8 * 1024 * 1024;
    guest.onSpdy = (socket) => {
      socket.resume();
      socket.end(Buffer.alloc(size, 5));
    };
    const client = dial(issue());
    await readHead(client);
    expect((await answerOf(client)).length).toBe(size);
    await eventually(() => server.sessions === 0);
  });

  test('a connection that is cut on one side is cut on the other', async () => {
    const client = dial(issue());
    await readHead(client);
    for (const socket of guest.connections) socket.resetAndDestroy();
    await cut(client);
    const other = dial(issue());
    await readHead(other);
    other.resetAndDestroy();
    await eventually(() => server.sessions === 0 && guest.connections.size === 0);
  });

  test('64 MiB each way, unharmed', async () => {
    const client = dial(issue());
    await readHead(client);
    const total = 64 * 1024 * 1024;
    const block = Buffer.alloc(1024 * 1024, 'infralet');
    let back = 0;
    let wrong = 0;
    client.on('data', (chunk: Buffer) => {
      if (chunk[0] !== block[back % block.length]) wrong++;
      back += chunk.length;
    });
    const started = performance.now();
    for (let sent = 0; sent < total; sent += block.length) {
      if (!client.write(block)) await once(client, 'drain', { signal: soon() });
    }
    await eventually(() => back === total);
    const seconds = (performance.now() - started) / 1000;
    expect(wrong).toBe(0);
    // Several hundred on an idle host; a busy one shall not fail the test.
    expect(total / 1024 / 1024 / seconds).toBeGreaterThan(5);
    client.destroy();
  });

  test('a client that does not read stops the guest instead of filling memory', async () => {
    let written = 0;
    guest.onSpdy = (socket) => {
      const block = Buffer.alloc(64 * 1024);
      const pump = (): void => {
        while (written < 64 * 1024 * 1024) {
          written += block.length;
          if (!socket.write(block)) {
            socket.once('drain', pump);
            return;
          }
        }
      };
      pump();
    };
    const client = dial(issue());
    await readHead(client);
    client.pause();
    let last = -1;
    // Standing still for 40 looks in a row: all buffers on the way are full.
    let still = 0;
    await until(
      () => {
        still = written === last ? still + 1 : 0;
        last = written;
        return still >= 40 ? true : undefined;
      },
      { everyMs: 10, signal: soon() },
    );
    expect(written).toBeLessThan(24 * 1024 * 1024);
    client.destroy();
    await eventually(() => guest.connections.size === 0);
  });
});

describe('WebSocket that passes through', () => {
  test('exec over v4.channel.k8s.io, which containerd speaks itself: output, status, exit code', async () => {
    const protocol = 'v4.channel.k8s.io';
    const url = server.issue('exec', async () => guest.target('/exec/ws'));
    const result = await runStream(url, {
      stdin: 'hello',
      protocols: [protocol],
      onOutput: (text, send) => {
        if (text === 'hello') send('exit 3');
      },
    });
    expect(result.stdout.toString()).toBe('hello');
    expect(result.stderr.toString()).toBe('bye');
    expect(result.exitCode).toBe(3);
    expect(guest.requests[0]?.headers['sec-websocket-protocol']).toBe(protocol);
    expect(guest.requests[0]?.headers.origin).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    await eventually(() => server.sessions === 0);
  });

  test('a forwarded port is a byte stream', async () => {
    const port = await forwardedPort(server.issue('portforward', async () => guest.target('/portforward/x')));
    port.destroy();
    await eventually(() => server.sessions === 0 && guest.connections.size === 0);
  });

  test('a guest that refuses is quoted', async () => {
    const client = dial(issue(), 'Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin:\r\n');
    expect(await answerOf(client)).toMatch(/^HTTP\/1\.1 403 Forbidden/);
  });
});

describe('refusals', () => {
  test('a token works once, and for its own kind', async () => {
    const url = issue('attach');
    expect(await answerOf(dial(url.replace('/attach/', '/exec/')))).toMatch(/^HTTP\/1\.1 404 /);
    const client = dial(url);
    expect(await readHead(client)).toContain('101');
    expect(await answerOf(dial(url))).toMatch(/^HTTP\/1\.1 404 [\s\S]*used before or has expired/);
    client.destroy();
    expect(await answerOf(dial(`${server.base}/exec/${'A'.repeat(43)}`))).toMatch(/^HTTP\/1\.1 404 /);
    expect(await answerOf(dial(`${server.base}/`))).toMatch(/^HTTP\/1\.1 404 /);
  });

  test('a token expires', async () => {
    await using short = await startStreaming({ tokenTtl: '1ms' });
    const url = short.issue('exec', async () => guest.target());
    const issued = Date.now();
    await eventually(() => Date.now() > issued + 1);
    expect(await answerOf(dial(url))).toMatch(/^HTTP\/1\.1 404 /);
    expect(guest.requests).toEqual([]);
  });

  test('a request without an upgrade is told what is missing, and costs no token', async () => {
    const url = issue();
    const answer = await fetch(url, { method: 'POST' });
    expect([answer.status, await answer.text()]).toEqual([400, expect.stringContaining('SPDY/3.1 or WebSocket')]);
    expect(await answerOf(dial(url, 'Connection: Upgrade\r\nUpgrade: h2c\r\n'))).toMatch(/^HTTP\/1\.1 400 /);
    const client = dial(url);
    expect(await readHead(client)).toContain('101');
    client.destroy();
  });

  test('an endless head', async () => {
    expect(await answerOf(dial(issue(), `X-Long: ${'x'.repeat(17_000)}\r\n`))).toMatch(/^HTTP\/1\.1 431 /);
  });

  test.each([
    ['NOT_FOUND', 404],
    ['FAILED_PRECONDITION', 409],
    ['UNAVAILABLE', 502],
    ['DEADLINE_EXCEEDED', 504],
    ['INTERNAL', 500],
  ] as const)('a guest that cannot be reached: %s', async (code, status) => {
    const url = server.issue('exec', async () => {
      throw new InfraletError(code, 'the machine says no');
    });
    const answer = await answerOf(dial(url));
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(answer).toContain('the machine says no');
    expect(server.sessions).toBe(0);
  });

  test('a guest that closes without an answer', async () => {
    const url = server.issue('exec', async () => {
      const target = guest.target();
      target.socket.once('connect', () => {
        for (const socket of guest.connections) socket.resetAndDestroy();
      });
      return target;
    });
    const answer = await answerOf(dial(url));
    expect(answer).toMatch(/^HTTP\/1\.1 502 /);
  });

  test('a client that leaves while the guest is being reached', async () => {
    const seen = Promise.withResolvers<AbortSignal>();
    const url = server.issue('exec', async (opening) => {
      seen.resolve(opening);
      return Promise.withResolvers<never>().promise;
    });
    const client = dial(url);
    const opening = await seen.promise;
    client.destroy();
    await eventually(() => opening.aborted && server.sessions === 0);
  });

  test('no more connections than configured', async () => {
    await using small = await startStreaming({ maxSessions: 2 });
    const clients = [1, 2].map(() => dial(small.issue('exec', async () => guest.target())));
    for (const client of clients) await readHead(client);
    expect(await answerOf(dial(small.issue('exec', async () => guest.target())))).toBe('');
    for (const client of clients) client.destroy();
    await eventually(() => small.sessions === 0);
  });
});

describe('ends', () => {
  test('a session outlives the time that its opening may take', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      // A tunnel to a machine ends with the signal that it was opened with.
      const url = server.issue('exec', async (signal) => {
        const target = guest.target();
        signal.addEventListener('abort', () => target.socket.destroy());
        return target;
      });
      const client = dial(url);
      await readHead(client);
      await vi.advanceTimersByTimeAsync(60_000);
      client.write('still there');
      const [echo] = await once(client, 'data', { signal: soon() });
      expect(String(echo)).toBe('still there');
      client.destroy();
    } finally {
      vi.useRealTimers();
    }
  });

  test('a silent session is closed', async () => {
    await using brief = await startStreaming({ idle: '100ms' });
    const client = dial(brief.issue('exec', async () => guest.target()));
    await readHead(client);
    await cut(client);
    await eventually(() => guest.connections.size === 0);
  });

  test('shutdown cuts sessions, and URLs are worth nothing afterwards', async () => {
    const stopping = await startStreaming();
    const url = stopping.issue('exec', async () => guest.target());
    const client = dial(stopping.issue('exec', async () => guest.target()));
    await readHead(client);
    const closed = cut(client);
    await stopping[Symbol.asyncDispose]();
    await closed;
    await eventually(() => guest.connections.size === 0);
    await expect(fetch(url)).rejects.toThrow('fetch failed');
  });

  test('an address in use is named', async () => {
    const port = Number(new URL(server.base).port);
    await expect(startStreaming({ port })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining(`127.0.0.1:${port}`),
    });
  });
});

test('tokens are in no log line', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'infralet-streaming-'));
  const file = await openFile(join(dir, 'log'), 'w+');
  const log = createLogger({ level: 'trace', components: {}, format: 'json', fd: file.fd });
  const urls: string[] = [];
  {
    await using logged = await startStreaming({}, log);
    const url = logged.issue('exec', async () => guest.target());
    const broken = logged.issue('exec', async () => {
      throw new InfraletError('UNAVAILABLE', 'no machine');
    });
    urls.push(url, broken);
    const client = dial(url);
    await readHead(client);
    client.destroy();
    await answerOf(dial(url));
    await answerOf(dial(broken));
    await eventually(() => logged.sessions === 0);
  }
  const text = await readFile(join(dir, 'log'), 'utf8');
  await file.close();
  await rm(dir, { recursive: true });
  expect(text).toContain('session started');
  expect(text).toContain('session failed');
  expect(text).toContain('streaming URL refused');
  for (const url of urls) expect(text).not.toContain(url.split('/').at(-1));
});
