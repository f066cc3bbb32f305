/**
 * What critest asks of a runtime and no other test here does: several containers of one pod, process namespaces, the user
 * named by the image's own tables, memory that runs out, removal in every state, and calls about what is not there.
 */
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BUSYBOX, TestNode } from '../support/node.ts';
import { TestPod } from '../support/pods.ts';

const NOBODY_HERE = 'f'.repeat(32);

let node: TestNode;
let pod: TestPod;
beforeAll(async () => {
  node = await TestNode.start();
  pod = await TestPod.run(node, {
    portMappings: [{ protocol: 'TCP', containerPort: 8090 }],
    linux: { securityContext: { namespaceOptions: { pid: 'POD' } } },
  });
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('containers of one pod', () => {
  test('share the network and the host name, not their files', async () => {
    const server = await pod.start('mkdir /www; echo hello > /www/page; exec httpd -f -p 8090 -h /www');
    const client = await pod.start('sleep 1000');
    expect(await client.sh('until wget -q -O - http://127.0.0.1:8090/page; do sleep 0.2; done')).toBe('hello');
    expect(await client.sh('hostname')).toBe(await server.sh('hostname'));
    expect(await client.sh('test -e /www || echo none')).toBe('none');
    // A port without a host port is reached at the pod's address.
    const answer = await fetch(`http://${await pod.ip()}:8090/page`, { signal: AbortSignal.timeout(30_000) });
    expect(await answer.text()).toBe('hello\n');
  });

  test('see the processes of the pod, or their own only, as they ask', async () => {
    const pid = async (mode: 'POD' | 'CONTAINER') => {
      const linux = { securityContext: { namespaceOptions: { pid: mode } } };
      return await pod.start('exec sleep 4242', { linux });
    };
    const shared = await pid('POD');
    const own = await pid('CONTAINER');
    const others = "grep -la '^sleep.4242' /proc/[0-9]*/cmdline | wc -l";
    expect(await own.sh("tr '\\0' ' ' < /proc/1/cmdline")).toBe('sleep 4242');
    expect(Number(await own.sh(others))).toBe(1);
    // Only the containers that share: the one with a namespace of its own shows there, too, since it is nested.
    expect(Number(await shared.sh(others))).toBeGreaterThanOrEqual(1);
    expect(await shared.sh("tr '\\0' ' ' < /proc/1/cmdline")).not.toContain('sleep 4242');
  });
});

test('a container that takes more memory than it may is killed, and its status says so', async () => {
  const greedy = await pod.start('echo begins; tail /dev/zero', {
    linux: { resources: { memoryLimitInBytes: String(24 * 1024 * 1024) } },
  });
  const { exitCode, reason } = await greedy.exited();
  expect({ exitCode, reason }).toEqual({ exitCode: 137, reason: 'OOMKilled' });
  expect(await greedy.logLines()).toHaveLength(1);
});

test('a mount whose source is a symlink shows what the link leads to', async () => {
  const real = join(node.directory, 'real');
  await mkdir(real);
  await writeFile(join(real, 'file'), 'behind the link');
  await symlink(real, join(node.directory, 'link'));
  const app = await pod.start('cat /data/file', {
    mounts: [{ containerPath: '/data', hostPath: join(node.directory, 'link'), readonly: true }],
  });
  await app.logged('behind the link');
});

test('containers are removed in every state, and lists and filters follow', async () => {
  const label = { labels: { group: 'removal' } };
  const created = await pod.create('true', label);
  const running = await pod.start('sleep 1000', label);
  const exited = await pod.start('exit 3', label);
  expect((await exited.exited()).exitCode).toBe(3);
  const listed = async (filter: object = {}): Promise<readonly string[]> => {
    const { containers } = await node.cri.ListContainers({ filter: { labelSelector: label.labels, ...filter } });
    return containers.map(({ id }) => id);
  };
  expect(new Set(await listed())).toEqual(new Set([created.id, running.id, exited.id]));
  expect(await listed({ state: { state: 'CONTAINER_EXITED' } })).toEqual([exited.id]);
  await expect(exited.exec('true')).rejects.toMatchObject({ details: expect.stringContaining('not running') });
  const left = [created, running, exited];
  for (const container of [...left]) {
    await node.cri.RemoveContainer({ containerId: container.id }, { timeoutMs: 60_000 });
    left.shift();
    expect(new Set(await listed())).toEqual(new Set(left.map(({ id }) => id)));
    await expect(container.status()).rejects.toMatchObject({ code: 5 });
  }
});

test('stop and remove succeed on what is not there, and again on what is stopped', async () => {
  await node.cri.StopContainer({ containerId: NOBODY_HERE });
  await node.cri.RemoveContainer({ containerId: NOBODY_HERE });
  await node.cri.StopPodSandbox({ podSandboxId: NOBODY_HERE });
  await node.cri.RemovePodSandbox({ podSandboxId: NOBODY_HERE });
  await node.cri.RemoveImage({ image: { image: 'nobody.test/has:this' } });
  const { image } = await node.cri.ImageStatus({ image: { image: 'nobody.test/has:this' } });
  expect(image).toBeNull();
  const brief = await pod.start('exit 0', { image: { image: BUSYBOX } });
  for (let n = 0; n < 2; n++) await node.cri.StopContainer({ containerId: brief.id, timeout: '0' });
  expect((await brief.status()).state).toBe('CONTAINER_EXITED');
});
