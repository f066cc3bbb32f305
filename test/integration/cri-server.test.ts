import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { connect as http2connect } from 'node:http2';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { status } from '@grpc/grpc-js';
import { describe, expect, test } from 'vitest';
import { InfraletError } from '../../src/base/errors.ts';
import { abortable } from '../../src/base/keyed-lock.ts';
import { until } from '../../src/base/time.ts';
import { createLogger } from '../../src/telemetry/log.ts';
import { criClient, criMethods } from '../support/cri-client.ts';
import { podRequest } from '../support/cri-requests.ts';
import { startCri } from '../support/cri-server.ts';

const signal = AbortSignal.timeout(100_000);

describe('the socket', () => {
  test('has the configured mode and goes away with the server', async () => {
    const cri = await startCri({ config: { server: { socketMode: '0600' } } });
    const { mode } = await stat(cri.config.server.socket);
    expect(mode & 0o777).toBe(0o600);
    await cri[Symbol.asyncDispose]();
    await expect(stat(cri.config.server.socket)).rejects.toThrow('ENOENT');
  });

  test('is 0660 by default', async () => {
    await using cri = await startCri();
    expect((await stat(cri.config.server.socket)).mode & 0o777).toBe(0o660);
  });

  test('of a killed process is taken over', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'infralet-stale-'));
    const socket = join(dir, 'cri.sock');
    const script = `require('net').createServer().listen(${JSON.stringify(socket)}, () => console.log('up'))`;
    const holder = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(holder.stdout, 'data');
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    expect((await stat(socket)).isSocket()).toBe(true);
    {
      await using cri = await startCri({ config: { server: { socket } } });
      expect((await cri.client.Version()).runtimeName).toBe('infralet');
    }
    await rm(dir, { recursive: true });
  });

  test('of a living process, or a file that is no socket, is left alone', async () => {
    await using cri = await startCri();
    const { socket } = cri.config.server;
    await expect(startCri({ config: { server: { socket } } })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining(`another process already serves ${socket}`),
    });
    expect((await cri.client.Version()).runtimeVersion).toBe('1.2.3');

    const file = join(cri.dir, 'plain');
    await writeFile(file, 'precious');
    await expect(startCri({ config: { server: { socket: file } } })).rejects.toThrow('is not a socket');
    await expect(startCri({ config: { server: { socket: `/${'x'.repeat(120)}` } } })).rejects.toThrow('longer than');
  });
});

describe('old clients', () => {
  test.each(['/run/infralet/infralet.sock', '%2Frun%2Finfralet.sock', 'a b"\\|', 'localhost'])(
    'with the authority %s',
    async (authority) => {
      await using cri = await startCri();
      using client = criClient(cri.config.server.socket, { 'grpc.default_authority': authority });
      // Enough calls, with ever new headers, to push the entry out of HPACK's dynamic table and bring it back.
      for (let n = 0; n < 300; n++) {
        await client.StopPodSandbox({ podSandboxId: `gone-${n}` }, { timeoutMs: 10_000 + n });
      }
      expect((await client.Version()).runtimeApiVersion).toBe('v1');
    },
  );

  test('entries pushed out of the table by big headers', async () => {
    await using cri = await startCri();
    const session = http2connect('http://localhost', {
      createConnection: () => createConnection(cri.config.server.socket),
    });
    for (let n = 0; n < 200; n++) {
      const request = session.request({
        ':method': 'POST',
        ':path': '/runtime.v1.RuntimeService/Version',
        ':authority': n % 3 === 0 ? '/run/one.sock' : `/run/${'other'.repeat(n % 7)}.sock`,
        'content-type': 'application/grpc',
        te: 'trailers',
        [`x-filler-${n}`]: 'f'.repeat(50 + (n % 11) * 40),
      });
      request.end(Buffer.alloc(5));
      const [headers] = await once(request, 'response', { signal });
      expect(headers[':status']).toBe(200);
      request.resume();
      await once(request, 'close', { signal });
    }
    session.destroy();
  });

  test('as bytes of grpc-go 1.33, recorded', async () => {
    await using cri = await startCri();
    const socket = createConnection(cri.config.server.socket);
    const seen: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => seen.push(chunk));
    socket.write(
      Buffer.from(
        '505249202a20485454502f322e300d0a0d0a534d0d0a0d0a0000000400000000000000000401000000000000690104000000018386' +
          '459962cb6a49a92afdc2bedb6a49a92ee2d9dcc42b1c4b620c7abf419362cb6a60d54b60e82a583552d83a0a95d072755f8b1d75' +
          'd0620d263d4c4d65647a8b9acac8b4c7602bb2caecff40027465864d833505b11f40899acac8b24d494f6a7f867df7c4f0036f00' +
          '00050001000000010000000000',
        'hex',
      ),
    );
    const answer = await until(
      () => {
        const bytes = Buffer.concat(seen);
        return bytes.includes('infralet') ? bytes : undefined;
      },
      { everyMs: 5, signal },
    );
    expect(answer.includes('1.2.3')).toBe(true);
    socket.destroy();
  });
});

describe('calls', () => {
  test('what a handler throws becomes a status; foreign errors never choose their own', async () => {
    await using cri = await startCri();
    const create = async () => cri.client.RunPodSandbox({ config: podRequest() });
    cri.services.work = async () => {
      throw new InfraletError('RESOURCE_EXHAUSTED', 'no machine left', { hint: 'raise the quota' });
    };
    await expect(create()).rejects.toMatchObject({
      code: status.RESOURCE_EXHAUSTED,
      details: 'no machine left; raise the quota',
    });
    cri.services.work = async () => {
      throw Object.assign(new Error('exit code 5\nlone \ud800'), { code: 5 });
    };
    await expect(create()).rejects.toMatchObject({
      code: status.INTERNAL,
      details: expect.stringContaining('exit code 5'),
    });
    expect((await cri.client.Version()).version).toBe('0.1.0');
  });

  test.each([
    ['the deadline passes', status.DEADLINE_EXCEEDED, 'DEADLINE_EXCEEDED'],
    ['the client gives up', status.CANCELLED, 'CANCELLED'],
  ])('the signal fires when %s', async (_name, code, reason) => {
    await using cri = await startCri();
    const seen = Promise.withResolvers<unknown>();
    const started = Promise.withResolvers<void>();
    cri.services.work = async (_what, signal) => {
      signal.addEventListener('abort', () => seen.resolve(signal.reason));
      started.resolve();
      await abortable(Promise.withResolvers<void>().promise, signal);
    };
    const abort = new AbortController();
    const call = cri.client.RunPodSandbox(
      { config: podRequest() },
      code === status.CANCELLED ? { signal: abort.signal } : { timeoutMs: 150 },
    );
    const rejected = expect(call).rejects.toMatchObject({ code });
    await started.promise;
    abort.abort();
    await rejected;
    expect(await seen.promise).toMatchObject({ code: reason });
    await until(() => (cri.server.activeCalls === 0 ? true : undefined), { everyMs: 5, signal });
  });

  test('too big a message is refused, and the server goes on', async () => {
    await using cri = await startCri({ config: { server: { maxMessage: '64Ki' } } });
    const big = { ...podRequest(), annotations: { big: 'x'.repeat(100_000) } };
    await expect(cri.client.RunPodSandbox({ config: big })).rejects.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    expect((await cri.client.Version()).version).toBe('0.1.0');
  });

  test('a thousand at once, on one connection', async () => {
    await using cri = await startCri();
    const pods = await Promise.all(
      Array.from({ length: 1000 }, async (_, n) =>
        cri.client.RunPodSandbox({
          config: podRequest({ metadata: { name: `p${n}`, uid: `u${n}`, namespace: 'n', attempt: 0 } }),
        }),
      ),
    );
    expect(new Set(pods.map((pod) => pod.podSandboxId)).size).toBe(1000);
    const lists = await Promise.all(Array.from({ length: 20 }, async () => cri.client.ListPodSandbox()));
    for (const { items } of lists) expect(items.length).toBe(1000);
    expect(cri.server.activeCalls).toBe(0);
  });

  test('a thousand at once, from fifty connections', async () => {
    await using cri = await startCri();
    using stack = new DisposableStack();
    const clients = Array.from({ length: 50 }, () => stack.use(criClient(cri.config.server.socket)));
    await Promise.all(
      Array.from({ length: 1000 }, async (_, n) => {
        const answer = await clients[n % 50]?.StopContainer({ containerId: `c${n}`, timeout: n });
        expect(answer).toEqual({});
      }),
    );
    expect(cri.services.journal.length).toBe(1000);
  });

  test('a peer that speaks no HTTP/2 hurts nobody', async () => {
    await using cri = await startCri();
    for (const noise of [
      'GET / HTTP/1.1\r\n\r\n',
      '\0'.repeat(5000),
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x01\x04',
    ]) {
      const socket = createConnection(cri.config.server.socket);
      socket.on('error', () => undefined);
      socket.end(Buffer.from(noise, 'latin1'));
      socket.resume();
      await once(socket, 'close', { signal });
    }
    expect((await cri.client.Version()).version).toBe('0.1.0');
  });
});

describe('drain', () => {
  test('lets a call in progress end, refuses the next, and closes', async () => {
    await using cri = await startCri();
    const gate = Promise.withResolvers<void>();
    const started = Promise.withResolvers<void>();
    cri.services.work = async () => {
      started.resolve();
      await gate.promise;
    };
    const call = cri.client.RunPodSandbox({ config: podRequest() });
    await started.promise;
    const drained = cri.server.drain();
    await expect(cri.client.Version()).rejects.toMatchObject({ code: status.UNAVAILABLE });
    gate.resolve();
    expect((await call).podSandboxId).toMatch(/^[0-9a-f]{32}$/);
    await drained;
    await expect(cri.client.Version({}, { timeoutMs: 500 })).rejects.toThrow();
  });

  test('cuts a call that does not end', async () => {
    await using cri = await startCri({ config: { server: { drain: '100ms' } } });
    const started = Promise.withResolvers<void>();
    cri.services.work = async () => {
      started.resolve();
      await Promise.withResolvers<void>().promise;
    };
    const call = expect(cri.client.RunPodSandbox({ config: podRequest() })).rejects.toMatchObject({
      code: status.UNAVAILABLE,
      details: expect.stringContaining('shutting down'),
    });
    await started.promise;
    await cri.server.drain();
    await call;
  });

  test('leaves nothing that keeps a process alive', async () => {
    const script = `
      import { startCri } from ${JSON.stringify(join(import.meta.dirname, '../support/cri-server.ts'))};
      const cri = await startCri();
      await cri.client.Version();
      await cri[Symbol.asyncDispose]();
    `;
    const ended = promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], { timeout: 20_000 });
    await expect(ended).resolves.toMatchObject({ stderr: '' });
  });
});

describe('RPCs', () => {
  test('those that are not there say so by name', async () => {
    await using cri = await startCri();
    const absent: string[] = [];
    for (const { name } of criMethods()) {
      const error: unknown = await cri.client[name]().then(
        () => undefined,
        (failure: unknown) => failure,
      );
      if (error instanceof Error && 'code' in error && error.code === status.UNIMPLEMENTED) {
        expect(error.message).toContain(`${name} is not implemented by infralet`);
        absent.push(name);
      }
    }
    expect(absent.sort()).toEqual(['CheckpointContainer', 'CheckpointPod', 'RestorePod']);
  });
});

test('log lines name the call and its end, and no secret', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'infralet-log-'));
  const file = await open(join(dir, 'log'), 'w+');
  const log = createLogger({ level: 'info', components: { cri: 'debug' }, format: 'json', fd: file.fd });
  {
    await using cri = await startCri({ log });
    const auth = {
      username: 'user-word',
      password: 'pass-word',
      identityToken: 'token-word',
      registryToken: 'reg-word',
    };
    await cri.client.PullImage({ image: { image: 'registry.example/a:1' }, auth });
    expect(cri.services.credentials).toEqual([{ ...auth, auth: '', serverAddress: '' }]);
    cri.services.work = async () => {
      throw new TypeError('a bug');
    };
    await expect(cri.client.PullImage({ image: { image: 'registry.example/a:2' }, auth })).rejects.toThrow('a bug');
    await expect(cri.client.StartContainer({ containerId: '' })).rejects.toThrow('container_id: must not be empty');
  }
  const text = await readFile(join(dir, 'log'), 'utf8');
  await file.close();
  await rm(dir, { recursive: true });
  expect(text).not.toMatch(/(user|pass|token|reg)-word/);
  const entries = text
    .trim()
    .split('\n')
    .map((line): Record<string, unknown> => JSON.parse(line));
  const [start, end] = entries.filter((entry) => entry['rpc'] === 'PullImage');
  expect(start).toMatchObject({
    component: 'cri',
    msg: 'call started',
    requestId: expect.stringMatching(/^[0-9a-f]{12}$/),
  });
  expect(end).toMatchObject({
    msg: 'call ended',
    code: 'OK',
    requestId: start?.['requestId'],
    durationMs: expect.any(Number),
  });
  expect(entries.find((entry) => entry['msg'] === 'call failed')).toMatchObject({
    code: 'INTERNAL',
    error: { stack: expect.stringContaining('a bug') },
  });
  expect(entries.find((entry) => entry['msg'] === 'call refused')).toMatchObject({
    rpc: 'StartContainer',
    code: 'INVALID_ARGUMENT',
    field: 'container_id',
  });
});
