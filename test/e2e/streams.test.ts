/** Exec, attach and port-forward under stress, with a real machine behind them. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { until } from '../../src/base/time.ts';
import { runStream, type StreamOptions } from '../support/cri-streams.ts';
import { TestNode } from '../support/node.ts';
import { type TestContainer, TestPod } from '../support/pods.ts';
import { portForward } from '../support/port-forward.ts';

const V5 = ['v5.channel.k8s.io'];
const MIB = 1024 * 1024;
const minutes = (n: number) => AbortSignal.timeout(n * 60_000);

let node: TestNode;
let pod: TestPod;
let app: TestContainer;
beforeAll(async () => {
  node = await TestNode.start();
  pod = await TestPod.run(node);
  app = await pod.start(
    'mkdir -p /www; echo first > /www/index.html; httpd -p 8080 -h /www; httpd -p 8081 -h /www; echo ready; ' +
      'while read line; do echo "got $line"; done; sleep 100000',
    { metadata: { name: 'app', attempt: 0 }, stdin: true },
  );
  await app.logged('ready');
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

const execUrl = async (script: string, tty = false): Promise<string> => {
  const cmd = ['/bin/sh', '-c', script];
  const { url } = await node.cri.Exec({ containerId: app.id, cmd, tty, stdin: true, stdout: true, stderr: !tty });
  return url;
};
const exec = async (script: string, options: StreamOptions = {}) =>
  runStream(await execUrl(script), { protocols: V5, timeoutMs: 120_000, ...options });
/** Command lines of the container's processes. */
const processes = async (): Promise<string> => app.sh('cat /proc/[0-9]*/cmdline | tr "\\0" " "');
const vanished = async (mark: string): Promise<true> =>
  until(async () => ((await processes()).includes(mark) ? undefined : true), { everyMs: 200, signal: minutes(1) });

test('the end of stdin ends what reads it; what it says afterwards still comes', async () => {
  const { stdout, exitCode } = await exec('wc -c; echo after >&2; exit 5', { stdin: Buffer.alloc(MIB, 'x') });
  expect([stdout.toString().trim(), exitCode]).toEqual([String(MIB), 5]);
});

test('a terminal has the size of the client’s', async () => {
  // stty may complain when the size changes under its hands.
  const script = 'while [ "$(stty size 2>/dev/null)" != "43 132" ]; do sleep 0.1; done; stty size';
  const url = await execUrl(script, true);
  const result = await runStream(url, { protocols: V5, terminal: { Width: 132, Height: 43 }, timeoutMs: 60_000 });
  expect([result.stdout.toString().trim(), result.exitCode]).toEqual(['43 132', 0]);
});

test('a hundred sessions at once, each with its own input, output and exit code', async () => {
  const numbers = Array.from({ length: 100 }, (_, n) => n + 1);
  // None ends before all are open.
  const answers: (() => void)[] = [];
  const run = async (n: number) => {
    const { stdout, exitCode } = await exec(`echo up; read line; echo "$line from ${n}"; exit ${n}`, {
      timeoutMs: 240_000,
      onOutput: (text, send) => {
        if (!text.includes('up')) return;
        answers.push(() => send(`word${n}\n`));
        if (answers.length === numbers.length) for (const answer of answers) answer();
      },
    });
    return [stdout.toString(), exitCode];
  };
  expect(await Promise.all(numbers.map(run))).toEqual(numbers.map((n) => [`up\nword${n} from ${n}\n`, n]));
});

test('32 MiB of output, whole, without growth of the daemon', async () => {
  const pid = node.daemonPid;
  const resident = async (): Promise<number> =>
    Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
  const socket = new WebSocket((await execUrl('head -c 33554432 /dev/zero')).replace(/^http/, 'ws'), V5);
  const before = await resident();
  let most = 0;
  let received = 0;
  socket.on('message', (data: Buffer) => {
    if (data[0] === 1) received += data.length - 1;
    // A reader that is slower than the machine.
    socket.pause();
    void resident().then((bytes) => {
      most = Math.max(most, bytes);
      socket.resume();
    });
  });
  await once(socket, 'close', { signal: minutes(3) });
  expect(received).toBe(32 * MIB);
  expect(most - before).toBeLessThan(24 * MIB);
});

test('ExecSync: a time limit kills the command, and output is cut at what a message holds', async () => {
  const limits = { timeoutMs: 120_000 };
  await expect(
    node.cri.ExecSync({ containerId: app.id, cmd: ['/bin/sleep', '4242'], timeout: '1' }, limits),
  ).rejects.toMatchObject({ code: 4 });
  await vanished('sleep 4242');
  const cmd = ['/bin/sh', '-c', 'head -c 20000000 /dev/zero; echo end >&2; exit 3'];
  const { stdout, stderr, exitCode } = await node.cri.ExecSync({ containerId: app.id, cmd, timeout: '100' }, limits);
  expect([stderr.toString(), exitCode]).toEqual(['end\n', 3]);
  expect(stdout.length).toBeGreaterThan(15 * MIB);
  expect(stdout.length).toBeLessThanOrEqual(16 * MIB);
});

test('a client that vanishes leaves nothing that waits for it', async () => {
  const socket = new WebSocket((await execUrl('exec cat - /dev/null /etc/mark')).replace(/^http/, 'ws'), V5);
  await once(socket, 'message', { signal: minutes(1) });
  socket.send(Buffer.from('\0echo'));
  await until(async () => ((await processes()).includes('/etc/mark') ? true : undefined), {
    everyMs: 100,
    signal: minutes(1),
  });
  socket.terminate();
  await vanished('/etc/mark');
});

test('twenty forwarded connections at once to two ports, and a port where nobody listens', async () => {
  const { url } = await node.cri.PortForward({ podSandboxId: pod.id, port: [] });
  using forward = await portForward(url, minutes(2));
  const asked = Array.from({ length: 20 }, async (_, n) => forward.ask(8080 + (n % 2), 'GET / HTTP/1.0\r\n\r\n'));
  for (const answer of await Promise.all(asked)) expect(answer).toMatch(/^HTTP\/1\.[01] 200 OK[\s\S]*first\n$/);
  await expect(forward.ask(8099, 'GET / HTTP/1.0\r\n\r\n')).rejects.toThrow(/8099|refused/);
  // One connection's failure is its own.
  expect(await forward.ask(8081, 'GET / HTTP/1.0\r\n\r\n')).toContain('first');
});

test('a container that was started before the daemon is attached to after its restart', async () => {
  await node.kill();
  await node.boot();
  // The daemon answers before its channels to the machines are open again: requests wait for them.
  const { url } = await node.cri.Attach({ containerId: app.id, stdin: true, stdout: true, stderr: true });
  const stop = new AbortController();
  let heard = '';
  await runStream(url, {
    protocols: V5,
    stdin: 'over attach\n',
    keepStdin: true,
    signal: stop.signal,
    timeoutMs: 60_000,
    onOutput: (text) => {
      heard += text;
      if (heard.includes('got over attach')) stop.abort();
    },
  });
  expect(heard).toContain('got over attach');
});
