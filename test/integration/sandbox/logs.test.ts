/** Logs, updates and stop signals through the whole heart of a daemon, over a guest in memory; real files, a real full disk. */
import { mkdir, mkdtemp, readFile, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { run as program } from '../../../src/base/process.ts';
import { until } from '../../../src/base/time.ts';
import type { ContainerConfig } from '../../../src/gen/runtime/v1/ContainerConfig.ts';
import type { NodeRuntime } from '../../../src/node-runtime.ts';
import { loadCri } from '../../../src/rpc/load.ts';
import type { FakeLog } from '../../support/fake-log.ts';
import { podConfig } from '../../support/sandbox-records.ts';
import { IMAGE, World } from '../../support/world.ts';

const signal = AbortSignal.timeout(80_000);
const tick = { everyMs: 2, signal };
const KIB = 1024;
const { CreateContainer, UpdateContainerResources } = loadCri().RuntimeService.service;

function containerConfig(change: ContainerConfig = {}) {
  const bytes = CreateContainer.requestSerialize({
    config: {
      metadata: { name: 'app', attempt: 0 },
      image: { image: IMAGE },
      logPath: 'app/0.log',
      linux: { resources: { memoryLimitInBytes: 1000, cpuShares: 100 } },
      ...change,
    },
  });
  const { config } = CreateContainer.requestDeserialize(bytes);
  if (!config) throw new Error('no container configuration');
  return config;
}

function resources(linux: object) {
  const request = UpdateContainerResources.requestDeserialize(
    UpdateContainerResources.requestSerialize({ linux: { ...linux } }),
  );
  if (!request.linux) throw new Error('no resources');
  return request.linux;
}

let directory: string;
let world: World;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pod-logs-'));
  world = await World.make(directory, {
    // One test waits for it to pass.
    machine: { channelWait: '1s' },
    reconciler: { retryInitial: '1ms' },
    containerLog: { guestBuffer: '64Ki', fullRetry: '5ms', endWait: '50ms' },
  });
});
afterEach(async () => {
  await world.provider[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

const logs = () => join(directory, 'logs');
const pod = () =>
  podConfig({ metadata: { name: 'web', uid: 'uid-1', namespace: 'default', attempt: 0 }, logDirectory: logs() });

async function started(runtime: NodeRuntime, change: ContainerConfig = {}) {
  const sandbox = await runtime.sandboxes.run(pod(), '', signal);
  const id = await runtime.containers.create(sandbox, containerConfig(change), pod(), signal);
  await runtime.containers.start(id, signal);
  // Clients open the log when the container has started, whether it has said anything or not.
  expect((await stat(path())).isFile()).toBe(true);
  const guest = world.guests.guests.get(sandbox);
  const log = guest?.logs.get(id);
  const container = [...(guest?.containers.values() ?? [])].at(-1);
  if (!guest || !log || !container) throw new Error('the guest has no such container');
  return { sandbox, id, guest, log, end: (code: number) => guest.end(container.id, code) };
}

const path = () => join(logs(), 'app/0.log');
const text = async (file = path()): Promise<string> => await readFile(file, 'utf8').catch(() => '');

/** As a container does: what does not fit waits. */
async function write(log: FakeLog, data: string): Promise<void> {
  await until(() => (log.write(data) ? true : undefined), tick);
}

/** A daemon that is there again has to reach the machine first. */
async function reachable<T>(work: () => Promise<T>): Promise<T> {
  return await until(() => work().catch(() => undefined), tick);
}

test('the log goes on over restarts and rotations, and the exit is told when all of it is there', async () => {
  let expected = '';
  const say = async (log: FakeLog, lines: number): Promise<void> => {
    for (let line = 0; line < lines; line += 1) {
      const data = `line ${expected.length}\n`;
      expected += data;
      await write(log, data);
    }
  };
  const first = world.start();
  const { id, log, end } = await started(first);
  await say(log, 20_000);
  await until(async () => ((await text()) === expected ? true : undefined), tick);
  await first[Symbol.asyncDispose]();
  // Renamed while no daemon was there, and what was said meanwhile waits in the guest.
  await rename(path(), `${path()}.1`);
  await say(log, 500);
  {
    await using second = world.start();
    await reachable(async () => {
      await second.containers.reopenLog(id, signal);
      return true;
    });
    expect((await stat(path())).isFile()).toBe(true);
    await say(log, 20_000);
    // Renamed while a line is on its way.
    const half = 'half of a li';
    expected += half;
    await write(log, half);
    await rename(path(), `${path()}.2`);
    await second.containers.reopenLog(id, signal);
    await second.containers.reopenLog(id, signal);
    expected += 'ne\n';
    await write(log, 'ne\n');
    await say(log, 10);
    end(5);
    await second.containers.stop(id, 0, signal);
    expect(second.containers.get(id).status()).toMatchObject({ state: 'CONTAINER_EXITED', exitCode: 5 });
    expect((await text(`${path()}.1`)) + (await text(`${path()}.2`)) + (await text())).toBe(expected);
    for (const file of [`${path()}.1`, `${path()}.2`, path()]) expect((await text(file)).at(-1)).toBe('\n');
    expect(log.end - log.first).toBeLessThan(64 * KIB);
    await expect(second.containers.reopenLog(id, signal)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  }
});

test('a full disk of the node: the log waits, so does the container, the exit is told all the same, nothing is lost', async () => {
  await mkdir(logs());
  const mount = (...words: readonly string[]) => program('mount', words, { signal, timeoutMs: 10_000 });
  await mount('-t', 'tmpfs', '-o', 'size=96k', 'tmpfs', logs());
  try {
    await using runtime = world.start();
    const { id, log, end } = await started(runtime);
    const line = `${'x'.repeat(1023)}\n`;
    let lines = 0;
    for (; log.write(line); lines += 1) await until(() => true, tick);
    await until(
      () => {
        while (log.write(line)) lines += 1;
        return log.end - log.first > 63 * KIB && lines > 110 ? true : undefined;
      },
      { everyMs: 20, signal },
    );
    expect(log.write(line)).toBe(false);
    end(1);
    await runtime.containers.stop(id, 0, signal);
    expect(runtime.containers.get(id).status()).toMatchObject({ state: 'CONTAINER_EXITED', exitCode: 1 });
    await mount('-o', 'remount,size=10m', logs());
    await until(async () => ((await text()) === line.repeat(lines) ? true : undefined), tick);
    await until(() => (runtime.containers.get(id).info()['logDone'] === true ? true : undefined), tick);
  } finally {
    await program('umount', [logs()], { signal, timeoutMs: 10_000 });
  }
});

test('updated resources reach the guest, are shown at once and by the next daemon before it has reached the machine', async () => {
  const first = world.start();
  const { sandbox, id, guest } = await started(first);
  await first.containers.updateResources(id, resources({ memoryLimitInBytes: 2000, cpusetCpus: '0-63' }), signal);
  expect([...guest.containers.values()][0]).toMatchObject({
    resources: { linux: { memoryLimitInBytes: '2000', cpusetCpus: '' } },
  });
  const huge = resources({ memoryLimitInBytes: 2 ** 50 });
  const many = resources({ cpuQuota: 100_000_000, cpuPeriod: 100_000 });
  for (const above of [huge, many]) {
    await expect(first.containers.updateResources(id, above, signal)).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
    });
    await expect(first.sandboxes.updateResources(sandbox, above, null, signal)).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
    });
  }
  await first.sandboxes.updateResources(sandbox, resources({ memoryLimitInBytes: 5000, cpuShares: 7 }), null, signal);
  expect(guest.podResources).toEqual({ memoryBytes: 5000, cpuQuota: 0, cpuPeriod: 0, cpuShares: 7 });
  await first[Symbol.asyncDispose]();
  guest.enrolled = false;
  await using second = world.start();
  expect(second.containers.get(id).status().resources?.linux).toMatchObject({
    memoryLimitInBytes: '2000',
    cpuShares: '100',
    cpusetCpus: '0-63',
  });
  expect(second.sandboxes.describe(sandbox)['resources']).toMatchObject({ memoryBytes: 5000 });
  await expect(
    second.sandboxes.updateResources(sandbox, resources({ memoryLimitInBytes: 1 }), null, signal),
  ).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

test('a stop signal of its own is sent by number; who does not heed it is killed after the grace', async () => {
  await using runtime = world.start();
  const { id, guest } = await started(runtime, { stopSignal: 'SIGNAL_SIGRTMINPLUS3' });
  await runtime.containers.stop(id, 5, signal);
  expect(guest.signals).toEqual([37]);
  expect(runtime.containers.get(id).status()).toMatchObject({ exitCode: 165, stopSignal: 'SIGNAL_SIGRTMINPLUS3' });
  guest.deaf = true;
  const change = { stopSignal: 'SIGNAL_SIGUSR2', metadata: { name: 'deaf' } } as const;
  const sandbox = runtime.sandboxes.list()[0]?.id ?? '';
  const deaf = await runtime.containers.create(sandbox, containerConfig(change), pod(), signal);
  await runtime.containers.start(deaf, signal);
  await runtime.containers.stop(deaf, 1, signal);
  expect(guest.signals).toEqual([37, 12]);
  expect(runtime.containers.get(deaf).status()).toMatchObject({ state: 'CONTAINER_EXITED', exitCode: 143 });
});

test('an exit whose event is lost is seen by the end of the log', async () => {
  await using runtime = world.start();
  const { id, end } = await started(runtime);
  end(3);
  await until(() => (runtime.containers.get(id).state === 'CONTAINER_EXITED' ? true : undefined), tick);
  expect(runtime.containers.get(id).status()).toMatchObject({ exitCode: 3 });
});
