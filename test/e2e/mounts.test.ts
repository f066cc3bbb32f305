/** Files and directories of the node in a pod's containers. */
import { chmod, chown, mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TestNode } from '../support/node.ts';
import { TestPod } from '../support/pods.ts';

let node: TestNode;
let pod: TestPod;
let pods: string;
beforeAll(async () => {
  node = await TestNode.start();
  pod = await TestPod.run(node);
  pods = join(node.directory, 'pods', String(pod.config.metadata?.uid));
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

test('a directory arrives with modes, owners, symlinks and nested trees', async () => {
  const source = join(node.directory, 'source');
  await mkdir(join(source, 'deep', 'deeper'), { recursive: true });
  await writeFile(join(source, 'secret'), 'for one only');
  await chown(join(source, 'secret'), 1234, 5678);
  await chmod(join(source, 'secret'), 0o640);
  await writeFile(join(source, 'deep', 'deeper', 'large'), Buffer.alloc(6 * 1024 * 1024, 'x'));
  await symlink('deep/deeper/large', join(source, 'link'));
  await symlink('/etc/passwd', join(source, 'absolute'));
  const app = await pod.start('sleep 1000', { mounts: [{ containerPath: '/data', hostPath: source }] });
  expect(await app.sh("stat -c '%a %u %g' /data/secret")).toBe('640 1234 5678');
  expect(await app.sh('readlink /data/link; readlink /data/absolute; wc -c < /data/link')).toBe(
    'deep/deeper/large\n/etc/passwd\n6291456',
  );
});

test('read-only is honoured, writable is writable, and the node is not changed by a copy', async () => {
  const source = join(node.directory, 'rw');
  await mkdir(source);
  await writeFile(join(source, 'file'), 'node');
  const app = await pod.start('sleep 1000', {
    mounts: [
      { containerPath: '/ro', hostPath: source, readonly: true },
      { containerPath: '/rw', hostPath: source },
    ],
  });
  expect((await app.exec('/bin/sh', '-c', 'echo x > /ro/file')).exitCode).not.toBe(0);
  expect(await app.sh('echo guest > /rw/file; cat /rw/file')).toBe('guest');
  expect(await readFile(join(source, 'file'), 'utf8')).toBe('node');
});

test('an emptyDir is shared by the containers of a pod and outlives them', async () => {
  const hostPath = join(pods, 'volumes', 'kubernetes.io~empty-dir', 'cache');
  await mkdir(hostPath, { recursive: true, mode: 0o777 });
  await chmod(hostPath, 0o777);
  const mounts = [{ containerPath: '/cache', hostPath }];
  const first = await pod.start('echo from the first > /cache/note', { mounts });
  await first.exited();
  const second = await pod.start('sleep 1000', { mounts });
  expect(await second.sh('cat /cache/note; stat -c %a /cache')).toBe('from the first\n777');
});

test('a ConfigMap keeps its ..data link; a single file lands where it is mounted', async () => {
  const hostPath = join(pods, 'volumes', 'kubernetes.io~configmap', 'settings');
  await mkdir(join(hostPath, '..2026_11_23'), { recursive: true });
  await writeFile(join(hostPath, '..2026_11_23', 'key'), 'value');
  await symlink('..2026_11_23', join(hostPath, '..data'));
  await symlink('..data/key', join(hostPath, 'key'));
  const hosts = join(pods, 'etc-hosts');
  await writeFile(hosts, '127.0.0.1 localhost\n192.0.2.7 seven\n');
  const app = await pod.start('sleep 1000', {
    mounts: [
      { containerPath: '/settings', hostPath, readonly: true },
      { containerPath: '/etc/hosts', hostPath: hosts },
    ],
  });
  expect(await app.sh('cat /settings/key; echo; readlink /settings/..data; grep seven /etc/hosts')).toBe(
    'value\n..2026_11_23\n192.0.2.7 seven',
  );
});

test("the termination message is on the node before the container's exit is told", async () => {
  const hostPath = join(pods, 'containers', 'worker', '0a1b');
  await mkdir(join(pods, 'containers', 'worker'), { recursive: true });
  await writeFile(hostPath, '');
  await chmod(hostPath, 0o666);
  const worker = await pod.start('echo it was the config > /dev/termination-log; exit 1', {
    mounts: [{ containerPath: '/dev/termination-log', hostPath }],
    annotations: { 'io.kubernetes.container.terminationMessagePath': '/dev/termination-log' },
  });
  await worker.exited();
  expect(await readFile(hostPath, 'utf8')).toBe('it was the config\n');
});

test('a source that does not exist is made; what cannot be honoured is refused with the reason', async () => {
  const missing = join(node.directory, 'made', 'for', 'you');
  const app = await pod.start('sleep 1000', { mounts: [{ containerPath: '/made', hostPath: missing }] });
  expect((await stat(missing)).isDirectory()).toBe(true);
  expect(await app.sh('ls -A /made')).toBe('');
  const both = { containerPath: '/both', hostPath: missing, propagation: 'PROPAGATION_BIDIRECTIONAL' as const };
  await expect(pod.create('true', { mounts: [both] })).rejects.toMatchObject({
    details: expect.stringMatching(/mount at \/both: Bidirectional/),
  });
  const later = { ...both, containerPath: '/later', propagation: 'PROPAGATION_HOST_TO_CONTAINER' as const };
  await expect(pod.create('true', { mounts: [later] })).rejects.toMatchObject({
    details: expect.stringMatching(/mount at \/later: .*copied.*policy\.hostPath: share/s),
  });
  const volume = join(pods, 'volumes', 'kubernetes.io~csi', 'block', 'file');
  await mkdir(join(volume, '..'), { recursive: true });
  await writeFile(volume, '');
  await expect(pod.create('true', { mounts: [{ containerPath: '/pv', hostPath: volume }] })).rejects.toMatchObject({
    details: expect.stringMatching(/mount at \/pv: .*no directory/s),
  });
});

test('a seccomp profile of the node is carried in and enforced', async () => {
  const profile = join(node.directory, 'no-chmod.json');
  const rule = { names: ['chmod', 'fchmod', 'fchmodat', 'fchmodat2'], action: 'SCMP_ACT_ERRNO' };
  await writeFile(profile, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule] }));
  const seccomp = { profileType: 'Localhost', localhostRef: profile } as const;
  const app = await pod.start('sleep 1000', { linux: { securityContext: { seccomp } } });
  expect((await app.exec('/bin/sh', '-c', 'touch /tmp/f && chmod 600 /tmp/f')).stderr).toContain('not permitted');
  const missing = { profileType: 'Localhost', localhostRef: join(node.directory, 'absent.json') } as const;
  await expect(pod.create('true', { linux: { securityContext: { seccomp: missing } } })).rejects.toMatchObject({
    code: 3,
    details: expect.stringContaining('absent.json'),
  });
});
