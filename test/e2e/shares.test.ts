/** Directories of the node that a pod uses as they are: a writable volume of a plugin, and hostPath by policy. */
import {
  chmod,
  chown,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { run } from '../../src/base/process.ts';
import { until } from '../../src/base/time.ts';
import { TestNode } from '../support/node.ts';
import { type TestContainer, TestPod } from '../support/pods.ts';

const TOOL = { signal: AbortSignal.timeout(600_000), timeoutMs: 20_000 };
let node: TestNode;
let pod: TestPod;
/** The volume on the node. */
let volume: string;
/** On the node, beside the volume, and nothing of the pod's. */
let outside: string;
let app: TestContainer;

beforeAll(async () => {
  node = await TestNode.start({ settings: { policy: { hostPath: 'share' } } });
  // As the kubelet does for a pod with a privileged container.
  pod = await TestPod.run(node, { linux: { securityContext: { privileged: true } } });
  const home = join(node.directory, 'pods', String(pod.config.metadata?.uid));
  volume = join(home, 'volumes', 'kubernetes.io~csi', 'pvc', 'mount');
  await mkdir(volume, { recursive: true });
  await chmod(volume, 0o777);
  outside = await mkdtemp(join(tmpdir(), 'infralet-outside-'));
  await writeFile(join(outside, 'secret'), 'of the node');
  await writeFile(join(volume, 'from-node'), 'first');
  app = await pod.start('sleep 10000', { mounts: [{ containerPath: '/pv', hostPath: volume }] });
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
  await rm(outside, { recursive: true, force: true });
});

async function soon(probe: () => Promise<boolean>): Promise<void> {
  await until(async () => ((await probe()) ? true : undefined), { everyMs: 50, signal: AbortSignal.timeout(10_000) });
}

test('both sides see what the other writes, renames and removes, with owners and modes', async () => {
  expect(await app.sh('cat /pv/from-node')).toBe('first');
  await writeFile(join(volume, 'from-node'), 'second');
  await soon(async () => (await app.sh('cat /pv/from-node')) === 'second');
  await app.sh(
    'mkdir /pv/d && echo hello > /pv/d/a && mv /pv/d/a /pv/d/b && ln /pv/d/b /pv/d/hard && ln -s b /pv/d/soft',
  );
  expect((await readdir(join(volume, 'd'))).sort()).toEqual(['b', 'hard', 'soft']);
  expect(await readFile(join(volume, 'd', 'soft'), 'utf8')).toBe('hello\n');
  await app.sh('chmod 640 /pv/d/b && chown 1234:5678 /pv/d/b && rm /pv/d/hard');
  expect(await lstat(join(volume, 'd', 'b'))).toMatchObject({ mode: 0o100640, uid: 1234, gid: 5678, nlink: 1 });
  await rename(join(volume, 'd', 'b'), join(volume, 'd', 'c'));
  await rm(join(volume, 'd', 'soft'));
  await soon(async () => (await app.sh('ls /pv/d | xargs')) === 'c');
  // A rename over an existing file never shows a moment without it.
  await app.sh('for i in $(seq 50); do echo $i > /pv/d/new && mv /pv/d/new /pv/d/c; done');
  expect(await readFile(join(volume, 'd', 'c'), 'utf8')).toBe('50\n');
});

test('users have their own rights: owners of new files, groups of directories, refusals', async () => {
  const group = join(volume, 'group');
  await mkdir(group);
  await chown(group, 0, 2000);
  await chmod(group, 0o2775);
  await mkdir(join(volume, 'closed'), { mode: 0o700 });
  const user = await pod.start('sleep 10000', {
    mounts: [{ containerPath: '/pv', hostPath: volume }],
    linux: {
      securityContext: { runAsUser: { value: 1000 }, runAsGroup: { value: 1000 }, supplementalGroups: [2000] },
    },
  });
  await user.sh('echo mine > /pv/group/file && echo more >> /pv/group/file');
  expect(await lstat(join(group, 'file'))).toMatchObject({ uid: 1000, gid: 2000 });
  expect((await user.exec('/bin/sh', '-c', 'ls /pv/closed')).stderr).toMatch(/denied/);
  expect((await user.exec('/bin/sh', '-c', 'echo x > /pv/group/../d/c')).stderr).toMatch(/denied/);
});

test('a large file is whole on both sides; what one container makes exclusively, no other does', async () => {
  const started = performance.now();
  await app.sh('dd if=/dev/urandom of=/pv/large bs=1M count=24 conv=fsync 2>/dev/null');
  const rate = 24_000 / (performance.now() - started);
  const [sum] = (await run('sha256sum', [join(volume, 'large')], TOOL)).split(' ');
  const second = await pod.start('sleep 10000', { mounts: [{ containerPath: '/pv', hostPath: volume }] });
  expect(await second.sh('sha256sum < /pv/large')).toContain(sum);
  process.stdout.write(`shared write: ${rate.toFixed(1)} MB/s\n`);
  // What one has made, the other does not make again.
  const claim = 'for i in $(seq 20); do mkdir /pv/claim-$i 2>/dev/null && echo $i; done | wc -l';
  const [mine, theirs] = await Promise.all([app.sh(claim), second.sh(claim)]);
  expect(Number(mine) + Number(theirs)).toBe(20);
});

test('symlinks do not lead out of the directory, whoever made them', async () => {
  await symlink(outside, join(volume, 'planted-by-node'));
  await app.sh(`ln -s ${outside} /pv/planted && ln -s ../../../../../../../../../..${outside} /pv/relative`);
  for (const name of ['planted', 'relative', 'planted-by-node']) {
    expect((await app.exec('/bin/cat', `/pv/${name}/secret`)).exitCode).not.toBe(0);
    expect((await app.exec('/bin/sh', '-c', `echo x > /pv/${name}/made`)).exitCode).not.toBe(0);
  }
  // A directory that is opened, and another in its place on the node when the next file is asked for.
  await app.sh('mkdir -p /pv/swap; echo inside > /pv/swap/secret');
  await app.sh(
    '(cd /pv/swap; while [ ! -e /tmp/stop ]; do cat secret; done >> /tmp/seen 2>/dev/null) >/dev/null 2>&1 &',
  );
  for (let round = 0; round < 20; round += 1) {
    await rename(join(volume, 'swap'), join(volume, 'swapped'));
    await symlink(outside, join(volume, 'swap'));
    await app.exec('/bin/cat', '/pv/swap/secret');
    await rm(join(volume, 'swap'));
    await rename(join(volume, 'swapped'), join(volume, 'swap'));
  }
  await app.sh('touch /tmp/stop');
  expect(await app.sh('grep -c node /tmp/seen || true')).toBe('0');
  expect(await readdir(outside)).toEqual(['secret']);
});

test('a read-only mount cannot be written, in the machine or by its server', async () => {
  const hostPath = await mkdtemp(join(tmpdir(), 'infralet-shared-'));
  try {
    await writeFile(join(hostPath, 'file'), 'node');
    const reader = await pod.start('sleep 10000', {
      mounts: [{ containerPath: '/ro', hostPath, readonly: true }],
      linux: { securityContext: { privileged: true } },
    });
    expect(await reader.sh('cat /ro/file')).toBe('node');
    expect((await reader.exec('/bin/sh', '-c', 'echo x > /ro/file')).exitCode).not.toBe(0);
    expect((await reader.exec('/bin/sh', '-c', 'mount -o remount,rw,bind /ro; echo x > /ro/file')).exitCode).not.toBe(
      0,
    );
    expect(await readFile(join(hostPath, 'file'), 'utf8')).toBe('node');
  } finally {
    await rm(hostPath, { recursive: true, force: true });
  }
});

test('an open file outlives a killed daemon; nothing is left of a removed pod', async () => {
  await app.sh(
    '(i=0; exec 3>/pv/counter; while [ $i -lt 100000 ]; do echo $i >&3 || exit; i=$((i+1)); sleep 0.05; done; ) >/tmp/out 2>&1 &',
  );
  await soon(async () => (await readFile(join(volume, 'counter'), 'utf8').catch(() => '')).split('\n').length > 3);
  await node.kill();
  const before = (await readFile(join(volume, 'counter'), 'utf8')).split('\n').length;
  await node.boot();
  await soon(async () => (await readFile(join(volume, 'counter'), 'utf8')).split('\n').length > before + 5);
  const lines = (await readFile(join(volume, 'counter'), 'utf8')).trimEnd().split('\n');
  expect(lines).toEqual(lines.map((_line, index) => String(index)));
  await writeFile(join(volume, 'after'), 'the restart');
  expect(await app.sh('cat /pv/after; cat /tmp/out')).toBe('the restart');
  const later = await pod.start('sleep 10000', { mounts: [{ containerPath: '/pv', hostPath: volume }] });
  expect(await later.sh('cat /pv/after')).toBe('the restart');

  await pod.stop();
  await pod.remove();
  const shares = join(node.stateDir, 'shares');
  await soon(async () => !(await readFile('/proc/self/mountinfo', 'utf8')).includes(shares));
  expect((await readdir(shares)).filter((name) => name !== 'programs')).toEqual([]);
  expect(await run('ps', ['-eo', 'args'], TOOL)).not.toContain(shares);
});
