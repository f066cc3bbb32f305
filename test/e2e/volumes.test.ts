/** Volumes of a pod: what changes on the node changes in its containers; scratch space in memory and on disk. */
import { createHash, randomBytes } from 'node:crypto';
import { chmod, chown, lstat, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { run } from '../../src/base/process.ts';
import { until } from '../../src/base/time.ts';
import { publish } from '../support/kubelet-volume.ts';
import { TestNode } from '../support/node.ts';
import { type TestContainer, TestPod } from '../support/pods.ts';

const TOOL = { signal: AbortSignal.timeout(600_000), timeoutMs: 20_000 };
let node: TestNode;
let pod: TestPod;
/** The kubelet's directory of the pod. */
let home: string;
const mounted: string[] = [];

beforeAll(async () => {
  node = await TestNode.start();
  // As the kubelet does for a pod with a privileged container.
  pod = await TestPod.run(node, { linux: { securityContext: { privileged: true } } });
  home = join(node.directory, 'pods', String(pod.config.metadata?.uid));
});
afterAll(async () => {
  for (const path of mounted.reverse()) await run('umount', [path], { ...TOOL, signal: AbortSignal.timeout(20_000) });
  await node[Symbol.asyncDispose]();
});

function volume(plugin: string, name: string): string {
  return join(home, 'volumes', `kubernetes.io~${plugin}`, name);
}

async function mount(args: readonly string[], path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  await run('mount', [...args, path], TOOL);
  mounted.push(path);
}

async function untilPrints(container: TestContainer, script: string, wanted: string): Promise<void> {
  await until(async () => ((await container.sh(script)) === wanted ? true : undefined), {
    everyMs: 20,
    signal: AbortSignal.timeout(30_000),
  });
}

/**
 * Milliseconds from the publication until the machine's agent had exchanged the volume. Asking the container takes as long as
 * an exec in an emulated machine on a busy host, which may be seconds.
 */
async function exchanged(path: string, publishedAt: number): Promise<number> {
  const find = async (): Promise<number | undefined> => {
    for (const line of (await node.daemonLog()).split('\n')) {
      if (!line.includes('volume brought up to date') || !line.includes(path)) continue;
      const { time } = JSON.parse(line) as { readonly time: number };
      if (time >= publishedAt) return time - publishedAt;
    }
    return undefined;
  };
  return await until(find, { everyMs: 50, signal: AbortSignal.timeout(30_000) });
}

test('an exchanged ConfigMap reaches running containers within 2 s, whole, across restarts of the daemon', async () => {
  const settings = volume('configmap', 'settings');
  const pair = (version: string) => ({ a: version, both: `${version} ${version}` });
  await publish(settings, { ...pair('v0'), old: 'x' });
  const hosts = join(home, 'etc-hosts');
  await writeFile(hosts, '127.0.0.1 localhost\n');
  const part = join(home, 'volume-subpaths', 'settings', 'app', '0');
  await mkdir(join(part, '..'), { recursive: true });
  await writeFile(part, 'v0');
  const mounts = [
    { containerPath: '/settings', hostPath: settings, readonly: true },
    { containerPath: '/etc/hosts', hostPath: hosts },
    { containerPath: '/part', hostPath: part, readonly: true },
  ];
  // Reads all the time; whatever is missing or mixed is written down.
  const watcher = `while :; do
    b=$(cat /settings/both) || { echo missing >> /tmp/bad; continue; }
    [ "\${b% *}" = "\${b#* }" ] || echo "mixed: $b" >> /tmp/bad
    [ -n "$(cat /settings/a)" ] || echo empty >> /tmp/bad
  done`;
  const first = await pod.start(watcher, { mounts });
  const second = await pod.start('sleep 1000', { mounts });
  for (const version of ['v1', 'v2', 'v3']) {
    const publishedAt = Date.now();
    await publish(settings, { ...pair(version), [`only-${version}`]: version });
    expect(await exchanged(settings, publishedAt)).toBeLessThan(2000);
    await untilPrints(second, 'cat /settings/a', version);
    await untilPrints(first, 'ls /settings | xargs', `a both only-${version}`);
  }
  await writeFile(part, 'v3');
  await writeFile(hosts, '127.0.0.1 localhost\n192.0.2.7 seven\n');
  await untilPrints(second, 'grep -c seven /etc/hosts || true', '1');

  await node.kill();
  await publish(settings, { ...pair('away') });
  await node.boot();
  await untilPrints(second, 'cat /settings/a', 'away');
  const publishedAt = Date.now();
  await publish(settings, { ...pair('back') });
  expect(await exchanged(settings, publishedAt)).toBeLessThan(2000);
  await untilPrints(second, 'cat /settings/a', 'back');
  expect(await first.sh('cat /tmp/bad 2>/dev/null || true')).toBe('');
  // As on any node: a subPath stays what it was.
  expect(await second.sh('cat /part')).toBe('v0');
});

test('2,000 files, a file larger than any message, and group rights arrive as they are', async () => {
  const many = volume('configmap', 'many');
  await publish(
    many,
    Object.fromEntries(Array.from({ length: 2000 }, (_, index) => [`key-${index}`, `value ${index}`])),
  );
  const secret = volume('secret', 'big');
  const big = randomBytes(20 * 1024 * 1024);
  await publish(secret, { big });
  const data = join(secret, '..data', 'big');
  await chown(data, 0, 2000);
  await chmod(data, 0o440);
  await chown(secret, 0, 2000);
  await chmod(secret, 0o2775);
  const started = performance.now();
  const app = await pod.start('sleep 1000', {
    mounts: [
      { containerPath: '/many', hostPath: many, readonly: true },
      { containerPath: '/secret', hostPath: secret, readonly: true },
    ],
  });
  process.stdout.write(`2,000 files and 20 MiB: ${Math.round(performance.now() - started)} ms\n`);
  expect(await app.sh('ls /many | wc -l; cat /many/key-1999')).toBe('2000\nvalue 1999');
  expect(await app.sh("stat -c '%a %g' /secret; stat -L -c '%a %u %g' /secret/big")).toBe('2775 2000\n440 0 2000');
  expect(await app.sh('sha256sum /secret/big')).toContain(createHash('sha256').update(big).digest('hex'));
});

test('an emptyDir in memory has the size of the kubelet’s tmpfs; its parts are parts of it', async () => {
  const memory = volume('empty-dir', 'memory');
  await mount(['-t', 'tmpfs', '-o', 'size=8m,mode=0777', 'tmpfs'], memory);
  const disk = volume('empty-dir', 'disk');
  await mkdir(join(disk, 'logs'), { recursive: true });
  await chmod(disk, 0o777);
  await chown(join(disk, 'logs'), 1000, 2000);
  await chmod(join(disk, 'logs'), 0o2750);
  await mkdir(join(memory, 'sub'));
  // A kubelet finds nothing there, and makes a directory: it cannot know that the machine has a file.
  await mkdir(join(disk, 'note'));
  const diskPart = join(home, 'volume-subpaths', 'disk', 'app', '0');
  await mount(['--bind', join(disk, 'logs')], diskPart);
  const diskFile = join(home, 'volume-subpaths', 'disk', 'app', '2');
  await mount(['--bind', join(disk, 'note')], diskFile);
  const memoryPart = join(home, 'volume-subpaths', 'memory', 'app', '1');
  await mount(['--bind', join(memory, 'sub')], memoryPart);
  const writer = await pod.start('sleep 1000', {
    mounts: [
      { containerPath: '/memory', hostPath: memory },
      { containerPath: '/disk', hostPath: disk },
    ],
  });
  expect(await writer.sh('stat -f -c %T /memory; df -k /memory | tail -1 | xargs | cut -d" " -f2')).toBe('tmpfs\n8192');
  expect((await writer.exec('/bin/sh', '-c', 'dd if=/dev/zero of=/memory/full bs=1M count=9')).stderr).toMatch(
    /No space/,
  );
  await writer.sh('rm /memory/full; echo early > /disk/note');
  const reader = await pod.start('sleep 1000', {
    mounts: [
      { containerPath: '/part', hostPath: diskPart },
      { containerPath: '/etc/note', hostPath: diskFile },
      { containerPath: '/fast', hostPath: memoryPart },
    ],
  });
  expect(await reader.sh("stat -c '%a %u %g' /part; stat -f -c %T /fast")).toBe('2750 1000 2000\ntmpfs');
  expect(await reader.sh('cat /etc/note')).toBe('early');
  await reader.sh('echo of the part > /part/file; echo fast > /fast/file');
  expect(await writer.sh('cat /disk/logs/file /memory/sub/file')).toBe('of the part\nfast');
  expect(await lstat(join(disk, 'logs', 'file')).catch(() => 'not on the node')).toBe('not on the node');

  // A daemon that was started again touches nothing of them.
  await writer.sh('chmod 1770 /disk; echo kept > /memory/kept');
  await node.kill();
  await node.boot();
  const later = await pod.start('sleep 1000', {
    mounts: [
      { containerPath: '/memory', hostPath: memory },
      { containerPath: '/disk', hostPath: disk },
    ],
  });
  expect(await later.sh('stat -c %a /disk; cat /disk/note /memory/kept')).toBe('1770\nearly\nkept');
});

test('mounts made below a volume reach the other containers of the pod that ask for it', async () => {
  const shared = volume('empty-dir', 'shared');
  await mkdir(shared, { recursive: true });
  const privileged = { securityContext: { privileged: true } };
  const mounter = await pod.start(
    'mkdir -p /shared/m && mount -t tmpfs t /shared/m && echo in > /shared/m/file; sleep 1000',
    {
      mounts: [{ containerPath: '/shared', hostPath: shared, propagation: 'PROPAGATION_BIDIRECTIONAL' }],
      linux: privileged,
    },
  );
  await untilPrints(mounter, 'cat /shared/m/file 2>/dev/null || true', 'in');
  const follower = await pod.start('sleep 1000', {
    mounts: [{ containerPath: '/shared', hostPath: shared, propagation: 'PROPAGATION_HOST_TO_CONTAINER' }],
  });
  expect(await follower.sh('cat /shared/m/file')).toBe('in');
  await mounter.sh('umount /shared/m');
  await untilPrints(follower, 'cat /shared/m/file 2>/dev/null || echo gone', 'gone');
});
