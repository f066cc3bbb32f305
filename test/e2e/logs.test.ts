/** Logs of a real pod: every line once over everything that happens on the way; and updates of what runs. */
import { readFile, rename, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../../src/base/time.ts';
import { TestNode } from '../support/node.ts';
import { type TestContainer, TestPod } from '../support/pods.ts';

const MIB = 1024 * 1024;
const BUFFER = MIB;
const seconds = (n: number) => AbortSignal.timeout(n * 1000);
const privileged = { linux: { securityContext: { privileged: true, namespaceOptions: { pid: 'NODE' as const } } } };

let node: TestNode;
let pod: TestPod;
/** Sees the whole machine. */
let inside: TestContainer;
beforeAll(async () => {
  node = await TestNode.start({ settings: { containerLog: { guestBuffer: '1Mi' } } });
  pod = await TestPod.run(node, privileged);
  inside = await pod.start('sleep 100000', privileged);
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

const pathOf = (container: TestContainer): string =>
  join(pod.config.logDirectory ?? '', container.config.logPath ?? '');
const size = async (path: string): Promise<number> => (await stat(path).catch(() => ({ size: 0 }))).size;

async function grows(path: string, bytes: number): Promise<void> {
  const target = (await size(path)) + bytes;
  await until(async () => ((await size(path)) >= target ? true : undefined), { everyMs: 20, signal: seconds(120) });
}

async function reopen(container: TestContainer): Promise<void> {
  // Right after a restart the machine may not be reached yet; a kubelet asks again, too.
  await until(
    () =>
      node.cri.ReopenContainerLog({ containerId: container.id }, { timeoutMs: 30_000 }).then(
        () => true,
        () => undefined,
      ),
    { everyMs: 100, signal: seconds(60) },
  );
}

/** kill -9 of the agent, from a container that may; the call's own channel breaks with it. */
async function killAgent(): Promise<void> {
  const script =
    'for p in /proc/[0-9]*; do if tr "\\0" " " <$p/cmdline | grep -q "^node .*agen[t].cjs"; then kill -9 $(basename $p); fi; done';
  await inside.exec('/bin/sh', '-c', script).catch(() => undefined);
}

async function kept(): Promise<number> {
  return Number(await inside.sh("du -sk /proc/1/root/scratch/logs | awk '{ print $1 }'")) * 1024;
}

test('a counter at full speed: every number once, over rotations, kill -9 of the daemon and of the agent', async () => {
  const last = 400_000;
  const counter = await pod.start(`seq 1 ${last}; exit 7`);
  const path = pathOf(counter);
  const files = [1, 2, 3].map((number) => `${path}.${number}`);
  await grows(path, MIB / 8);
  await rename(path, files[0] ?? '');
  await reopen(counter);
  await grows(path, MIB / 8);

  await node.kill();
  // The kubelet rotates just now, and its call finds nobody.
  await rename(path, files[1] ?? '');
  await node.boot();
  await reopen(counter);
  await grows(path, MIB / 8);

  await killAgent();
  await grows(path, MIB / 8);
  await rename(path, files[2] ?? '');
  await reopen(counter);

  const status = await until(
    async () => {
      const found = await counter.status();
      return found.state === 'CONTAINER_EXITED' ? found : undefined;
    },
    { everyMs: 100, signal: seconds(240) },
  );
  expect(status.exitCode).toBe(7);
  const texts = await Promise.all([...files, path].map((file) => readFile(file, 'utf8')));
  for (const text of texts.slice(0, 3)) expect(text.length).toBeGreaterThan(100 * 1024);
  const lines = texts.join('').split('\n');
  expect(lines.pop()).toBe('');
  const wrong = lines.findIndex((line, index) => !line.endsWith(` stdout F ${index + 1}`));
  expect(wrong === -1 ? '' : lines.slice(wrong - 1, wrong + 2).join('\n')).toBe('');
  expect(lines).toHaveLength(last);
});

test('bytes of all kinds, both streams, lines without an end, long lines and terminals arrive as they are', async () => {
  const raw = await pod.start(
    'printf "a\\000b\\377c\\n"; echo to stderr >&2; head -c 20000 /dev/zero | tr "\\000" x; echo; printf "no end"',
  );
  await raw.exited();
  const content = await readFile(pathOf(raw), 'latin1');
  const lines = content.split('\n').map((line) => line.replace(/^\S+ /, ''));
  expect(lines).toContain('stdout F a\0b\xffc');
  expect(lines).toContain('stderr F to stderr');
  const long = lines.filter((line) => /^stdout [PF] x+$/.test(line));
  expect(long.map((line) => line.slice(7, 8))).toEqual(['P', 'F']);
  expect(long.map((line) => line.slice(9)).join('')).toBe('x'.repeat(20_000));
  expect(lines.some((line) => /^stdout [PF] no end$/.test(line))).toBe(true);

  const terminal = await pod.start('echo on a terminal; echo error >&2', { tty: true, stdin: true });
  await terminal.exited();
  const shown = (await readFile(pathOf(terminal), 'latin1')).split('\n').map((line) => line.replace(/^\S+ /, ''));
  expect(shown.filter((line) => line !== '')).toEqual(['stdout F on a terminal', 'stdout F error']);
});

test('a container at full speed fills neither the machine nor the daemon; without a daemon it waits', async () => {
  const loud = await pod.start('yes');
  const path = pathOf(loud);
  await grows(path, MIB);
  expect(await kept()).toBeLessThan(BUFFER + MIB);
  await node.kill();
  // Long enough to write the bound many times over; nobody is there to tell that it waits.
  await new Promise((resolve) => setTimeout(resolve, 8000));
  const before = await size(path);
  await node.boot();
  await until(() => inside.exec('/bin/true').catch(() => undefined), { everyMs: 100, signal: seconds(60) });
  expect(await kept()).toBeLessThan(BUFFER + MIB);
  await grows(path, before / 8);
  await node.cri.StopContainer({ containerId: loud.id, timeout: '1' }, { timeoutMs: 60_000 });
  const lines = (await readFile(path, 'utf8')).split('\n');
  expect(lines.pop()).toBe('');
  expect(lines.findIndex((line) => !/^\S+ stdout [FP] y?$/.test(line))).toBe(-1);
  await truncate(path);
});

test('limits change in the machine, and are still shown after a restart', async () => {
  const resources = { memoryLimitInBytes: String(32 * MIB), cpuQuota: '50000', cpuPeriod: '100000' };
  const app = await pod.start('sleep 100000', { linux: { resources } });
  expect(await app.sh('cat /sys/fs/cgroup/memory.max')).toBe(String(32 * MIB));
  const update = { memoryLimitInBytes: String(48 * MIB), cpuQuota: '80000' };
  await node.cri.UpdateContainerResources({ containerId: app.id, linux: { ...update, cpuPeriod: '100000' } });
  expect(await app.sh('cat /sys/fs/cgroup/memory.max')).toBe(String(48 * MIB));
  expect(await app.sh('cat /sys/fs/cgroup/cpu.max')).toBe('80000 100000');
  expect((await app.status()).resources?.linux).toMatchObject(update);
  const tooMuch = { memoryLimitInBytes: String(4096 * MIB) };
  await expect(node.cri.UpdateContainerResources({ containerId: app.id, linux: tooMuch })).rejects.toMatchObject({
    code: 8,
    details: expect.stringContaining('bytes of memory'),
  });

  const ofPod = { memoryLimitInBytes: String(128 * MIB), cpuQuota: '90000', cpuPeriod: '100000', cpuShares: '512' };
  await node.cri.UpdatePodSandboxResources({ podSandboxId: pod.id, resources: ofPod });
  const group = (file: string) => inside.sh(`cat /proc/1/root/sys/fs/cgroup/pod/${file}`);
  expect(await group('memory.max')).toBe(String(128 * MIB));
  expect(await group('cpu.max')).toBe('90000 100000');
  await node.cri.UpdatePodSandboxResources({ podSandboxId: pod.id, resources: { memoryLimitInBytes: '-1' } });
  expect(await group('memory.max')).toBe('max');
  await expect(node.cri.UpdatePodSandboxResources({ podSandboxId: pod.id, resources: tooMuch })).rejects.toMatchObject({
    code: 8,
    details: expect.stringContaining('its machine has'),
  });
  await node.cri.UpdateRuntimeConfig({ runtimeConfig: { networkConfig: { podCidr: '10.244.1.0/24,fd00::/64' } } });

  await node.kill();
  await node.boot();
  expect((await app.status()).resources?.linux).toMatchObject(update);
  await until(() => app.exec('/bin/true').catch(() => undefined), { everyMs: 100, signal: seconds(60) });
  expect((await app.status()).resources?.linux).toMatchObject(update);
});

test("a container's own stop signal is sent and shown; one that does not heed it is killed", async () => {
  const script = (action: string) => `trap '${action}' USR1; trap '' TERM; echo ready; while :; do sleep 0.1; done`;
  const own = await pod.start(script('echo heard; exit 3'), { stopSignal: 'SIGNAL_SIGUSR1' });
  const deaf = await pod.start(script('echo heard'), { stopSignal: 'SIGNAL_SIGUSR1' });
  await Promise.all([own.logged('ready'), deaf.logged('ready')]);
  expect((await own.status()).stopSignal).toBe('SIGNAL_SIGUSR1');
  await Promise.all([
    node.cri.StopContainer({ containerId: own.id, timeout: '20' }, { timeoutMs: 60_000 }),
    node.cri.StopContainer({ containerId: deaf.id, timeout: '2' }, { timeoutMs: 60_000 }),
  ]);
  expect(await own.status()).toMatchObject({ state: 'CONTAINER_EXITED', exitCode: 3 });
  expect((await own.logLines()).at(-1)).toMatch(/ heard$/);
  expect(await deaf.status()).toMatchObject({ state: 'CONTAINER_EXITED', exitCode: 137 });
  expect((await deaf.logLines()).at(-1)).toMatch(/ heard$/);
});
