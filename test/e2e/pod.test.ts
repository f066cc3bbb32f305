/** One pod from its first call to its last, in a real machine; then two that talk to each other. */

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../../src/base/process.ts';
import { until } from '../../src/base/time.ts';
import { forwardedPort, runStream } from '../support/cri-streams.ts';
import { BUSYBOX, TestNode } from '../support/node.ts';
import { type TestContainer, TestPod } from '../support/pods.ts';

const seconds = (n: number) => AbortSignal.timeout(n * 1000);

let node: TestNode;
beforeAll(async () => {
  node = await TestNode.start();
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('a pod', () => {
  let pod: TestPod;
  let app: TestContainer;

  beforeAll(async () => {
    pod = await TestPod.run(node, {
      hostname: 'web-0',
      labels: { app: 'web' },
      annotations: { note: 'kept as it is' },
      dnsConfig: { servers: ['192.0.2.53'], searches: ['svc.test'], options: ['ndots:5'] },
      portMappings: [{ protocol: 'TCP', containerPort: 8080, hostPort: 18_080 }],
    });
    app = await pod.start(
      'echo to stdout; echo to stderr >&2; while read line; do echo "got $line"; done; httpd -f -p 8080 -h /tmp',
      { metadata: { name: 'app', attempt: 0 }, stdin: true, envs: [{ key: 'COLOUR', value: Buffer.from('blue') }] },
    );
  });

  test('is ready, has an address, and comes back as it was asked for', async () => {
    const { status } = await node.cri.PodSandboxStatus({ podSandboxId: pod.id });
    expect(status).toMatchObject({
      id: pod.id,
      state: 'SANDBOX_READY',
      metadata: pod.config.metadata,
      labels: { app: 'web' },
      annotations: { note: 'kept as it is' },
    });
    expect(status?.network?.ip).toMatch(/^10\.24\d\.\d+\.\d+$/);
    const { items } = await node.cri.ListPodSandbox({ filter: { labelSelector: { app: 'web' } } });
    expect(items.map(({ id }) => id)).toEqual([pod.id]);
  });

  test('runs in a kernel of its own, in a machine with the size that was asked for', async () => {
    const host = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
    expect(await app.sh('cat /proc/sys/kernel/random/boot_id')).not.toBe(host.trim());
    const { version } = await import('node:os');
    expect(await app.sh('uname -v')).not.toBe(version());
  });

  test('has the host name, DNS, address and routes that it was given', async () => {
    expect(await app.sh('hostname')).toBe('web-0');
    expect((await app.sh('cat /etc/resolv.conf')).split('\n')).toEqual([
      'search svc.test',
      'nameserver 192.0.2.53',
      'options ndots:5',
    ]);
    expect(await app.sh("ip -4 -o addr show dev eth0 | sed 's/.*inet //; s/ .*//'")).toBe(`${await pod.ip()}/24`);
    expect(await app.sh('ip route show default')).toContain('via 10.');
  });

  test('keeps its link-local address to itself', async () => {
    const mac = await app.sh('cat /sys/class/net/eth0/address');
    const other = await TestPod.run(node);
    try {
      const container = await other.start('sleep 1000');
      const linkLocal = (target: TestContainer) =>
        target.sh("ip -6 -o addr show dev eth0 scope link | sed 's/.*inet6 //; s/ .*//'");
      expect(await container.sh('cat /sys/class/net/eth0/address')).not.toBe(mac);
      expect(await linkLocal(container)).not.toBe(await linkLocal(app));
    } finally {
      await other.remove();
    }
  });

  test('writes its log on the node in the form of the CRI, both streams', async () => {
    const lines = await app.logged('to stderr');
    const form = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d) (stdout|stderr) F /;
    expect(lines.every((line) => form.test(line))).toBe(true);
    expect(lines.map((line) => line.split(' ').slice(1).join(' ')).sort()).toEqual([
      'stderr F to stderr',
      'stdout F to stdout',
    ]);
    expect((await app.status()).logPath).toBe(join(pod.config.logDirectory ?? '', 'app.log'));
  });

  test('execs: output of both streams, exit codes, environment, time limit', async () => {
    expect(await app.exec('/bin/sh', '-c', 'echo out; echo err >&2; exit 7')).toEqual({
      stdout: 'out\n',
      stderr: 'err\n',
      exitCode: 7,
    });
    expect(await app.sh('echo $COLOUR')).toBe('blue');
    await expect(
      node.cri.ExecSync({ containerId: app.id, cmd: ['/bin/sleep', '100'], timeout: '1' }, { timeoutMs: 30_000 }),
    ).rejects.toMatchObject({ code: 4 });
    await expect(node.cri.ExecSync({ containerId: app.id, cmd: ['/no/such/program'] })).rejects.toMatchObject({
      details: expect.stringContaining('/no/such/program'),
    });
  });

  test('execs over a stream: stdin goes in, output and exit code come out', async () => {
    const { url } = await node.cri.Exec({
      containerId: app.id,
      cmd: ['/bin/sh', '-c', 'read line; echo "read $line"; echo problem >&2; exit 3'],
      stdin: true,
      stdout: true,
      stderr: true,
    });
    const result = await runStream(url, { stdin: 'from the client\n' });
    expect(result.stdout.toString()).toBe('read from the client\n');
    expect(result.stderr.toString()).toBe('problem\n');
    expect(result.exitCode).toBe(3);
    // The URL was for one use.
    await expect(runStream(url, { timeoutMs: 5000 })).rejects.toThrow();
  });

  test('is attached to: what is typed reaches the process, what it says comes back', async () => {
    const { url } = await node.cri.Attach({ containerId: app.id, stdin: true, stdout: true, stderr: true });
    const stop = new AbortController();
    let heard = '';
    await runStream(url, {
      stdin: 'over attach\n',
      keepStdin: true,
      signal: stop.signal,
      onOutput: (text) => {
        heard += text;
        if (heard.includes('got over attach')) stop.abort();
      },
    });
    expect(heard).toContain('got over attach');
    await app.logged('got over attach');
  });

  test('is reached by port-forward, by its address and by its host port', async () => {
    const server = await pod.start('mkdir -p /www; echo it works > /www/index.html; httpd -f -p 8080 -h /www');
    await until(
      async () =>
        (await server.exec('/bin/wget', '-q', '-O', '/dev/null', 'http://127.0.0.1:8080/')).exitCode === 0
          ? true
          : undefined,
      {
        everyMs: 100,
        signal: seconds(30),
      },
    );
    const { url } = await node.cri.PortForward({ podSandboxId: pod.id, port: [8080] });
    const socket = await forwardedPort(url);
    socket.write('GET / HTTP/1.0\r\n\r\n');
    let answer = '';
    for await (const chunk of socket) {
      answer += String(chunk);
      if (answer.includes('it works')) break;
    }
    expect(answer).toContain('it works');
    expect(await (await fetch(`http://${await pod.ip()}:8080/`)).text()).toBe('it works\n');
    const gateway = (await pod.ip()).replace(/\.\d+$/, '.1');
    expect(await (await fetch(`http://${gateway}:18080/`)).text()).toBe('it works\n');
    await node.cri.StopContainer({ containerId: server.id, timeout: '0' }, { timeoutMs: 30_000 });
  });

  test('reaches the node and, through it, the outside, but nothing of the management network', async () => {
    const gateway = (await pod.ip()).replace(/\.\d+$/, '.1');
    const listener = createServer((socket) => socket.end('from the node')).listen(0, gateway);
    await once(listener, 'listening');
    try {
      const address = listener.address();
      const port = typeof address === 'object' && address ? address.port : 0;
      expect(await app.sh(`nc ${gateway} ${port} < /dev/null`)).toBe('from the node');
    } finally {
      listener.close();
    }
    // The management NIC is not in the pod's namespace, and what listens in the machine does not listen there.
    expect((await app.sh('ls /sys/class/net')).split(/\s+/).sort()).toEqual(['eth0', 'lo']);
    expect(await app.sh('cat /sys/class/net/*/address')).not.toContain('52:54:00:00:00:01');
    for (const port of [7443, 10_010, 5000]) {
      const { exitCode, stderr } = await app.exec('/bin/nc', '-w', '2', '127.0.0.1', String(port));
      expect(exitCode, `port ${port} must be out of reach`).not.toBe(0);
      expect(stderr).toContain('refused');
    }
  });

  test('stops with its grace: SIGTERM is heard, the exit code kept, the log complete', async () => {
    const polite = await pod.start('trap "echo bye; exit 42" TERM; echo ready; while :; do sleep 0.1; done');
    await polite.logged('ready');
    await node.cri.StopContainer({ containerId: polite.id, timeout: '20' }, { timeoutMs: 60_000 });
    expect(await polite.status()).toMatchObject({ state: 'CONTAINER_EXITED', exitCode: 42 });
    expect((await polite.logLines()).at(-1)).toMatch(/ stdout F bye$/);
    await node.cri.StopContainer({ containerId: polite.id, timeout: '20' });
    await node.cri.RemoveContainer({ containerId: polite.id }, { timeoutMs: 30_000 });
    await node.cri.RemoveContainer({ containerId: polite.id });
    await expect(polite.status()).rejects.toMatchObject({ code: 5 });
  });

  test('tells of exits by itself, with reason and times', async () => {
    const brief = await pod.start('echo last words; exit 9');
    const status = await brief.exited();
    expect(status).toMatchObject({ exitCode: 9, reason: 'Error' });
    expect(BigInt(status.finishedAt)).toBeGreaterThanOrEqual(BigInt(status.startedAt));
    expect(BigInt(status.startedAt)).toBeGreaterThanOrEqual(BigInt(status.createdAt) - 1_000_000_000n);
    expect((await brief.logLines()).at(-1)).toMatch(/last words$/);
  });

  test('refuses a second container of the same name, and one whose image is not there', async () => {
    await expect(pod.create('true', { metadata: { name: 'app', attempt: 0 } })).rejects.toMatchObject({ code: 6 });
    await expect(pod.create('true', { image: { image: 'e2e.test/absent:1' } })).rejects.toMatchObject({
      code: 5,
      details: expect.stringContaining('pull it first'),
    });
  });

  test('a start that fails says why', async () => {
    const broken = await pod.create('', { command: ['/no/such/program'] });
    await expect(node.cri.StartContainer({ containerId: broken.id }, { timeoutMs: 60_000 })).rejects.toMatchObject({
      details: expect.stringContaining('/no/such/program'),
    });
    expect((await broken.status()).state).toBe('CONTAINER_EXITED');
  });

  test('gives everything back: machine, address, namespace; statuses stay until it is removed', async () => {
    const machines = await node.machines();
    expect(machines).toHaveLength(1);
    await pod.stop();
    await pod.stop();
    expect(await node.machines()).toEqual([]);
    const { status } = await node.cri.PodSandboxStatus({ podSandboxId: pod.id });
    expect(status).toMatchObject({ state: 'SANDBOX_NOTREADY', labels: { app: 'web' } });
    expect((await app.status()).state).toBe('CONTAINER_EXITED');
    await expect(app.exec('/bin/true')).rejects.toMatchObject({ code: 9 });
    await pod.remove();
    await pod.remove();
    await expect(node.cri.PodSandboxStatus({ podSandboxId: pod.id })).rejects.toMatchObject({ code: 5 });
    await expect(app.status()).rejects.toMatchObject({ code: 5 });
    expect(await run('ip', ['netns', 'list'], { signal: seconds(10), timeoutMs: 10_000 })).not.toContain(
      pod.id.slice(0, 8),
    );
  });
});

test('two pods talk to each other by their addresses, and both are made at once', async () => {
  const [server, client] = await Promise.all([TestPod.run(node), TestPod.run(node)]);
  const web = await server.start('mkdir -p /www; echo hello neighbour > /www/index.html; httpd -f -p 80 -h /www');
  await until(
    async () =>
      (await web.exec('/bin/wget', '-q', '-O', '/dev/null', 'http://127.0.0.1/')).exitCode === 0 ? true : undefined,
    {
      everyMs: 100,
      signal: seconds(30),
    },
  );
  const caller = await client.start('sleep 1000');
  expect(await caller.sh(`wget -q -O - http://${await server.ip()}/`)).toBe('hello neighbour');
  await Promise.all([server.remove(), client.remove()]);
});

test("a stranger at a machine's agent port is turned away and the pod goes on", async () => {
  const pod = await TestPod.run(node);
  const app = await pod.start('sleep 1000');
  const port = await node.agentPort();
  expect(port).toBeGreaterThan(0);
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.resume();
  socket.write('GET / HTTP/1.1\r\n\r\n');
  await once(socket, 'close');
  const { default: tls } = await import('node:tls');
  const stranger = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] });
  // Refused with an alert, which may or may not be read before the connection is gone.
  const heard: unknown[] = [];
  stranger.on('error', (error) => heard.push(error.message));
  stranger.on('data', (bytes) => heard.push(bytes));
  stranger.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  await new Promise<void>((resolve) => stranger.once('close', () => resolve()));
  for (const message of heard) expect(String(message)).toMatch(/certificate required|ECONNRESET|EPIPE/);
  expect(await app.sh('echo alive')).toBe('alive');
  await pod.remove();
});

test('an image is shared by pods and its blobs are read only by those it was granted to', async () => {
  const { image } = await node.cri.ImageStatus({ image: { image: BUSYBOX } });
  expect(image?.id).toMatch(/^sha256:/);
  const { imageFilesystems } = await node.cri.ImageFsInfo();
  expect(Number(imageFilesystems[0]?.usedBytes?.value)).toBeGreaterThan(0);
});
