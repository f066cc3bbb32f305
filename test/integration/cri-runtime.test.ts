import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { InfraletError } from '../../src/base/errors.ts';
import type { StreamRequest } from '../../src/container/service.ts';
import { containerRequest, podRequest } from '../support/cri-requests.ts';
import { startCri, type TestCri } from '../support/cri-server.ts';
import { forwardedPort, runStream } from '../support/cri-streams.ts';
import { startStreamingGuest } from '../support/streaming-guest.ts';

let cri: TestCri;
beforeAll(async () => {
  cri = await startCri({});
});
afterAll(async () => {
  await cri[Symbol.asyncDispose]();
});

const pod = async (name: string, change: object = {}, runtimeHandler = '') => {
  const metadata = { name, uid: `uid-${name}`, namespace: 'default', attempt: 2 };
  const { podSandboxId } = await cri.client.RunPodSandbox({
    config: podRequest({ metadata, ...change }),
    runtimeHandler,
  });
  return podSandboxId;
};
const container = async (podSandboxId: string, change: object = {}) => {
  const { containerId } = await cri.client.CreateContainer({ podSandboxId, config: containerRequest(change) });
  return containerId;
};

describe('the node', () => {
  test('Version', async () => {
    expect(await cri.client.Version({ version: '0.1.0' })).toEqual({
      version: '0.1.0',
      runtimeName: 'infralet',
      runtimeVersion: '1.2.3',
      runtimeApiVersion: 'v1',
    });
  });

  test('Status: conditions, handlers, features, and info when asked for', async () => {
    const answer = await cri.client.Status();
    expect(answer.status?.conditions).toEqual([
      { type: 'RuntimeReady', status: true, reason: '', message: '' },
      { type: 'NetworkReady', status: true, reason: '', message: '' },
    ]);
    expect(answer.runtimeHandlers.map((handler) => handler.name)).toEqual(['', 'infralet']);
    expect(answer.features).toMatchObject({ supplementalGroupsPolicy: true, mountOptions: true });
    expect(answer.info).toEqual({});
    const verbose = await cri.client.Status({ verbose: true });
    expect(JSON.parse(verbose.info['info'] ?? '')).toEqual({ machines: 0 });
  });

  test('Status: a network that is not ready says why', async () => {
    await using other = await startCri({
      runtimeStatus: async () => ({
        runtime: { ok: true, reason: '', message: '' },
        network: { ok: false, reason: 'NetworkPluginNotReady', message: 'no *.conflist in /etc/cni/net.d' },
        info: {},
      }),
    });
    expect((await other.client.Status()).status?.conditions[1]).toEqual({
      type: 'NetworkReady',
      status: false,
      reason: 'NetworkPluginNotReady',
      message: 'no *.conflist in /etc/cni/net.d',
    });
  });

  test('RuntimeConfig: the configured cgroup driver', async () => {
    expect((await cri.client.RuntimeConfig()).linux?.cgroupDriver).toBe('CGROUPFS');
    await using other = await startCri({ config: { server: { cgroupDriver: 'systemd' } } });
    expect((await other.client.RuntimeConfig()).linux?.cgroupDriver).toBe('SYSTEMD');
  });
});

describe('pods', () => {
  test('a life: run, status, stop, remove, and both again', async () => {
    const config = {
      labels: { app: 'life' },
      annotations: { note: 'ünïcode\nline' },
      linux: { securityContext: { namespaceOptions: { network: 'NODE', pid: 'CONTAINER' } } },
    };
    const id = await pod('life', config, 'infralet');
    const { status, info, timestamp } = await cri.client.PodSandboxStatus({ podSandboxId: id });
    expect(status).toMatchObject({
      id,
      metadata: { name: 'life', uid: 'uid-life', namespace: 'default', attempt: 2 },
      state: 'SANDBOX_READY',
      network: { ip: '10.88.0.7', additionalIps: [{ ip: 'fd00::7' }] },
      linux: { namespaces: { options: { network: 'NODE', pid: 'CONTAINER', ipc: 'POD' } } },
      labels: config.labels,
      annotations: config.annotations,
      runtimeHandler: 'infralet',
    });
    expect(BigInt(status?.createdAt ?? 0) / 1_000_000_000n).toBeGreaterThan(1_700_000_000n);
    expect(BigInt(timestamp)).toBeGreaterThanOrEqual(BigInt(status?.createdAt ?? 0));
    expect(info).toEqual({});
    const verbose = await cri.client.PodSandboxStatus({ podSandboxId: id.slice(0, 13), verbose: true });
    expect(JSON.parse(verbose.info['info'] ?? '')).toEqual({ state: 'ready', machine: 'vm-1' });

    for (let n = 0; n < 2; n++) await cri.client.StopPodSandbox({ podSandboxId: id.slice(0, 13) });
    expect((await cri.client.PodSandboxStatus({ podSandboxId: id })).status?.state).toBe('SANDBOX_NOTREADY');
    for (let n = 0; n < 2; n++) await cri.client.RemovePodSandbox({ podSandboxId: id });
    await expect(cri.client.PodSandboxStatus({ podSandboxId: id })).rejects.toMatchObject({ code: 5 });
    await cri.client.StopPodSandbox({ podSandboxId: id });
    expect(cri.services.journal).toContain(`stop ${id}`);
  });

  test('a runtime handler that is not configured is refused', async () => {
    await expect(pod('handler', {}, 'gvisor')).rejects.toMatchObject({
      code: 3,
      details: 'runtime_handler: must be one of , infralet, is "gvisor"',
    });
  });

  test('lists: filters add up', async () => {
    const [a, b] = await Promise.all([
      pod('list-a', { labels: { app: 'list', tier: 'web' } }),
      pod('list-b', { labels: { app: 'list', tier: 'db' } }),
    ]);
    await cri.client.StopPodSandbox({ podSandboxId: b });
    const list = async (filter: object) =>
      (await cri.client.ListPodSandbox({ filter })).items.map(({ id }) => id).sort();
    expect(await list({ labelSelector: { app: 'list' } })).toEqual([a, b].sort());
    expect(await list({ labelSelector: { app: 'list', tier: 'db' } })).toEqual([b]);
    expect(await list({ labelSelector: { app: 'list' }, state: { state: 'SANDBOX_READY' } })).toEqual([a]);
    expect(await list({ labelSelector: { app: 'list' }, state: { state: 'SANDBOX_NOTREADY' } })).toEqual([b]);
    expect(await list({ id: a.slice(0, 12) })).toEqual([a]);
    expect(await list({ id: a, state: { state: 'SANDBOX_NOTREADY' } })).toEqual([]);
    expect(await list({ id: 'ffff-nothing' })).toEqual([]);
    const [item] = (await cri.client.ListPodSandbox({ filter: { id: b } })).items;
    expect(item).toMatchObject({
      id: b,
      metadata: { name: 'list-b', attempt: 2 },
      state: 'SANDBOX_NOTREADY',
      labels: { app: 'list', tier: 'db' },
      runtimeHandler: '',
    });
  });
});

test("a prefix that fits several is nobody's id", async () => {
  // Of seventeen hexadecimal ids two begin alike.
  const ids = await Promise.all(Array.from({ length: 17 }, async (_, n) => pod(`many-${n}`)));
  const digit = ids.map((id) => id.slice(0, 1)).find((first, index, all) => all.indexOf(first) !== index) ?? '';
  expect((await cri.client.ListPodSandbox({ filter: { id: digit } })).items).toEqual([]);
  await expect(cri.client.PodSandboxStatus({ podSandboxId: digit })).rejects.toMatchObject({ code: 3 });
  await expect(cri.client.RemovePodSandbox({ podSandboxId: digit })).rejects.toMatchObject({ code: 3 });
});

describe('containers', () => {
  test('a life: create, start, status, stop, remove, and again', async () => {
    const sandbox = await pod('containers');
    const config = {
      labels: { c: '1' },
      annotations: { d: '2' },
      mounts: [{ containerPath: '/data', hostPath: '/srv/data', readonly: true }],
      logPath: 'main/0.log',
    };
    const id = await container(sandbox.slice(0, 14), config);
    expect(id).toMatch(/^[0-9a-f]{64}$/);
    await cri.client.StartContainer({ containerId: id.slice(0, 13) });
    const { status } = await cri.client.ContainerStatus({ containerId: id });
    expect(status).toMatchObject({
      id,
      state: 'CONTAINER_RUNNING',
      image: { image: 'registry.example/busybox:1' },
      imageRef: 'registry/busybox@sha256:abc',
      logPath: 'main/0.log',
      mounts: [{ containerPath: '/data', readonly: true }],
      labels: { c: '1' },
    });
    const verbose = await cri.client.ContainerStatus({ containerId: id.slice(0, 13), verbose: true });
    expect(JSON.parse(verbose.info['info'] ?? '')).toEqual({ pid: 17 });
    const whole = await cri.client.PodSandboxStatus({ podSandboxId: sandbox });
    expect(whole.containersStatuses.map((one) => one.id)).toEqual([id]);

    await cri.client.StopContainer({ containerId: id.slice(0, 13), timeout: 7 });
    expect(cri.services.journal).toContain(`stop ${id} 7`);
    expect((await cri.client.ContainerStatus({ containerId: id })).status?.state).toBe('CONTAINER_EXITED');
    for (let n = 0; n < 2; n++) await cri.client.RemoveContainer({ containerId: id });
    await expect(cri.client.ContainerStatus({ containerId: id })).rejects.toMatchObject({ code: 5 });
    await expect(cri.client.StartContainer({ containerId: id })).rejects.toMatchObject({ code: 5 });
    await cri.client.StopContainer({ containerId: id });
  });

  test('lists: filters add up, and changes show', async () => {
    const [one, two] = await Promise.all([pod('lists-1'), pod('lists-2')]);
    const [a, b, c] = await Promise.all([
      container(one, { labels: { set: 'x', n: 'a' } }),
      container(one, { labels: { set: 'x', n: 'b' } }),
      container(two, { labels: { set: 'x', n: 'c' } }),
    ]);
    const list = async (filter: object) =>
      (await cri.client.ListContainers({ filter })).containers.map(({ id }) => id).sort();
    expect(await list({ labelSelector: { set: 'x' } })).toEqual([a, b, c].sort());
    await cri.client.StartContainer({ containerId: b });
    expect(await list({ podSandboxId: one })).toEqual([a, b].sort());
    expect(await list({ podSandboxId: one.slice(0, 12), state: { state: 'CONTAINER_RUNNING' } })).toEqual([b]);
    expect(await list({ podSandboxId: two, state: { state: 'CONTAINER_RUNNING' } })).toEqual([]);
    expect(await list({ state: { state: 'CONTAINER_CREATED' }, labelSelector: { set: 'x' } })).toEqual([a, c].sort());
    expect(await list({ id: b, podSandboxId: two })).toEqual([]);
    expect(await list({ id: c.slice(0, 13) })).toEqual([c]);
    expect(await list({ podSandboxId: 'nothing' })).toEqual([]);
    const shown = async () => (await cri.client.ListContainers({ filter: { id: b } })).containers[0];
    expect(await shown()).toMatchObject({
      id: b,
      podSandboxId: one,
      metadata: { name: 'main' },
      state: 'CONTAINER_RUNNING',
      imageId: 'sha256:abc',
      labels: { set: 'x', n: 'b' },
    });
    await cri.client.StopContainer({ containerId: b });
    expect(await shown()).toMatchObject({ state: 'CONTAINER_EXITED' });
  });

  test('in a pod that is not there: NOT_FOUND', async () => {
    await expect(container('0123456789abcdef')).rejects.toMatchObject({ code: 5 });
  });
});

describe('ExecSync', () => {
  test('any bytes, exit code, arguments', async () => {
    const id = await container(await pod('exec'));
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
    cri.services.exec = async (cmd, timeout) => ({
      stdout: bytes,
      stderr: Buffer.from(JSON.stringify([cmd, timeout])),
      exitCode: 137,
    });
    const answer = await cri.client.ExecSync({ containerId: id, cmd: ['sh', '-c', ''], timeout: 4 });
    expect(answer.stdout).toEqual(bytes);
    expect(JSON.parse(answer.stderr.toString())).toEqual([['sh', '-c', ''], 4]);
    expect(answer.exitCode).toBe(137);
  });

  test('more output than a message holds is cut', async () => {
    const id = await container(await pod('exec-big'));
    cri.services.exec = async () => ({ stdout: Buffer.alloc(20_000_000, 1), stderr: Buffer.from('why'), exitCode: 0 });
    const answer = await cri.client.ExecSync({ containerId: id, cmd: ['cat', '/dev/zero'] });
    expect(answer.stdout.length).toBe(16 * 1024 * 1024 - 1024 - 3);
    expect(answer.stderr.toString()).toBe('why');
  });

  test('DEADLINE_EXCEEDED when the command does not end in time, also from a machine that does not answer', async () => {
    const id = await container(await pod('exec-time'));
    cri.services.exec = async () => {
      throw new InfraletError('DEADLINE_EXCEEDED', 'the command took longer than 1 s');
    };
    await expect(cri.client.ExecSync({ containerId: id, cmd: ['sleep'], timeout: 1 })).rejects.toMatchObject({
      code: 4,
    });
    cri.services.exec = async () => Promise.withResolvers<never>().promise;
    await expect(cri.client.ExecSync({ containerId: id, cmd: ['sleep'], timeout: 1 })).rejects.toMatchObject({
      code: 4,
    });
  });
});

describe('streaming', () => {
  test('Exec, Attach and PortForward answer with URLs that open what was asked for', async () => {
    await using guest = await startStreamingGuest();
    const asked: StreamRequest[] = [];
    cri.services.open = async (request) => {
      asked.push(request);
      return guest.target(`/${request.kind}/in-the-guest`);
    };
    const sandbox = await pod('streams');
    const id = await container(sandbox);
    await cri.client.StartContainer({ containerId: id });

    const exec = await cri.client.Exec({ containerId: id.slice(0, 13), cmd: ['cat'], stdin: true, stdout: true });
    expect(exec.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/exec\/[A-Za-z0-9_-]{43}$/);
    const result = await runStream(exec.url, { stdin: 'exit 7', protocols: ['v4.channel.k8s.io'] });
    expect([result.exitCode, result.stderr.toString()]).toEqual([7, 'bye']);
    await expect(runStream(exec.url)).rejects.toThrow('refused');

    const attach = await cri.client.Attach({ containerId: id, stdin: true, stdout: true, tty: true });
    expect((await runStream(attach.url, { stdin: 'exit 0', protocols: ['v4.channel.k8s.io'] })).exitCode).toBe(0);
    const forward = await cri.client.PortForward({ podSandboxId: sandbox.slice(0, 13), port: [80, 443] });
    (await forwardedPort(forward.url)).destroy();

    const streams = { tty: false, stdin: true, stdout: true, stderr: false };
    expect(asked).toEqual([
      { kind: 'exec', containerId: id, cmd: ['cat'], ...streams },
      { kind: 'attach', containerId: id, ...streams, tty: true },
      { kind: 'portforward', sandboxId: sandbox, ports: [80, 443] },
    ]);
    expect(guest.requests.map((request) => request.url)).toEqual([
      '/exec/in-the-guest',
      '/attach/in-the-guest',
      '/portforward/in-the-guest',
    ]);
  });

  test('too many unused URLs', async () => {
    await using small = await startCri({ config: { streaming: { maxTokens: 2 } } });
    const { podSandboxId } = await small.client.RunPodSandbox({ config: podRequest() });
    const ask = async () => small.client.PortForward({ podSandboxId, port: [80] });
    await ask();
    await ask();
    await expect(ask()).rejects.toMatchObject({ code: 8, details: expect.stringContaining('streaming.maxTokens') });
  });
});

describe('images', () => {
  test('a life: pull, status, list, remove', async () => {
    const image = { image: 'registry.example/app:1' };
    const { imageRef } = await cri.client.PullImage({ image });
    expect(cri.services.credentials.at(-1)).toBeUndefined();
    const answer = await cri.client.ImageStatus({ image, verbose: true });
    expect(answer.image).toMatchObject({
      id: imageRef,
      repoTags: [image.image],
      repoDigests: [`registry.example/app@${imageRef}`],
      size: '4300000000',
      spec: { image: imageRef, annotations: { 'org.opencontainers.image.title': 'app' } },
      uid: { value: '1000' },
      pinned: false,
    });
    expect(JSON.parse(answer.info['info'] ?? '')).toMatchObject({ id: imageRef });
    expect((await cri.client.ImageStatus({ image: { image: imageRef } })).image?.id).toBe(imageRef);
    expect((await cri.client.ListImages()).images.map(({ id }) => id)).toContain(imageRef);
    expect((await cri.client.ListImages({ filter: { image } })).images.length).toBe(1);
    expect((await cri.client.ListImages({ filter: { image: { image: 'other' } } })).images).toEqual([]);
    for (let n = 0; n < 2; n++) await cri.client.RemoveImage({ image });
    expect((await cri.client.ImageStatus({ image })).image).toBeNull();
  });

  test('ImageFsInfo', async () => {
    const answer = await cri.client.ImageFsInfo();
    expect(answer.imageFilesystems).toMatchObject([
      {
        fsId: { mountpoint: '/var/lib/infralet/images' },
        usedBytes: { value: '5000000000' },
        inodesUsed: { value: '42' },
      },
    ]);
    expect(answer.containerFilesystems).toEqual(answer.imageFilesystems);
  });
});
