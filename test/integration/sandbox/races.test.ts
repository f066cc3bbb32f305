/** Things that happen at the same time, and guests that say too much or the wrong thing. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { newContainerId, newSandboxId } from '../../../src/base/ids.ts';
import { systemClock, until } from '../../../src/base/time.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { GuestImages } from '../../../src/container/images.ts';
import { ContainerLogs } from '../../../src/container/logs.ts';
import { ContainerObserver } from '../../../src/container/observer.ts';
import { changeFromGuest } from '../../../src/container/status.ts';
import { ContainerStore } from '../../../src/container/store.ts';
import type { ContainerStatus__Output } from '../../../src/gen/runtime/v1/ContainerStatus.ts';
import type { LogBytes } from '../../../src/guest/channel.ts';
import type { PodNetwork } from '../../../src/network/pod-network.ts';
import { containerCodec, sandboxCodec } from '../../../src/rpc/codecs.ts';
import { loadCri } from '../../../src/rpc/load.ts';
import { SandboxStore } from '../../../src/sandbox/store.ts';
import { Journal } from '../../../src/state/journal.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { MountCarrier } from '../../../src/volume/mounts.ts';
import { podConfig, sandboxRecord } from '../../support/sandbox-records.ts';
import { World } from '../../support/world.ts';

const signal = AbortSignal.timeout(60_000);
const cri = loadCri();
const { CreateContainer, ContainerStatus } = cri.RuntimeService.service;
const tick = { everyMs: 1, signal };
const never = (): never => {
  throw new InfraletError('UNAVAILABLE', 'the channel broke');
};

function containerConfig() {
  const bytes = CreateContainer.requestSerialize({ config: { metadata: { name: 'app' }, logPath: 'app.log' } });
  const { config } = CreateContainer.requestDeserialize(bytes);
  if (!config) throw new Error('no configuration');
  return config;
}

function guestStatus(change: object): ContainerStatus__Output {
  const bytes = ContainerStatus.responseSerialize({ status: change });
  const { status } = ContainerStatus.responseDeserialize(bytes);
  if (!status) throw new Error('no status');
  return status;
}

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'races-'));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

async function* nothing(): AsyncGenerator<never> {}

/** An observer over real stores, and a guest whose calls are `answer`'s. */
function observed(
  answer: (method: string, request: unknown) => Promise<unknown>,
  readLog: () => AsyncIterable<LogBytes> = nothing,
) {
  const journal = new Journal(':memory:');
  const sandboxes = new SandboxStore(journal, sandboxCodec(cri));
  const store = new ContainerStore(journal, containerCodec(cri));
  const sandbox = sandboxRecord({ state: 'ready', listed: true, guestSandboxId: 'pod' });
  sandboxes.add(sandbox, podConfig({ logDirectory: directory }));
  const channel = { cri: answer, readFile: nothing, readLog, removeLog: async () => undefined };
  const sessions = { get: () => channel } as never;
  const logs = new ContainerLogs({
    journal,
    store,
    sandboxes,
    sessions,
    config: configSchema.parse({}).containerLog,
    clock: systemClock,
    log: nullLogger,
  });
  const observer = new ContainerObserver({
    store,
    sandboxes,
    sessions,
    logs,
    guestImages: new GuestImages({} as never),
    mounts: new MountCarrier({
      ...configSchema.parse({}),
      shares: { directory, programs: directory },
      channelOf: () => undefined,
      clock: systemClock,
      log: nullLogger,
    }),
    clock: systemClock,
    log: nullLogger,
  });
  const add = (change: object): ReturnType<typeof newContainerId> => {
    const id = newContainerId();
    const times = { createdAt: '1', startedAt: '2', finishedAt: '0' };
    const rest = {
      imageId: '',
      user: null,
      imageRef: '',
      exitCode: 0,
      reason: '',
      message: '',
      logDone: false,
    };
    const base = { id, sandboxId: sandbox.id, guestId: '', state: 'CONTAINER_RUNNING' as const, removing: false };
    store.add({ ...base, ...times, ...rest, ...change }, containerConfig());
    return id;
  };
  const close = async (): Promise<void> => {
    await observer[Symbol.asyncDispose]();
    await logs[Symbol.asyncDispose]();
  };
  return { observer, store, add, close, sandboxId: sandbox.id };
}

test('a container that is made while all are read anew is not taken for a lost one', async () => {
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<unknown>();
  const { observer, store, add, close, sandboxId } = observed(async (method) => {
    if (method !== 'ListContainers') throw new InfraletError('NOT_FOUND', method);
    asked.resolve();
    return await answer.promise;
  });
  const lost = add({ guestId: 'gone' });
  let made = newContainerId();
  {
    made = add({});
    using _creating = observer.creating(made);
    observer.onEvent(sandboxId, { kind: 'resync' });
    await asked.promise;
    store.update(made, { guestId: 'made' });
  }
  answer.resolve({ containers: [] });
  await until(() => (store.find(lost)?.record.state === 'CONTAINER_EXITED' ? true : undefined), tick);
  expect(store.find(made)?.record).toMatchObject({ guestId: 'made', state: 'CONTAINER_RUNNING' });
  await close();
});

test('a removal that was cut short is finished', async () => {
  const removed: unknown[] = [];
  const { observer, store, add, close, sandboxId } = observed(async (method, request) => {
    if (method === 'ListContainers') return { containers: [{ id: 'half', labels: {} }] };
    removed.push(request);
    return {};
  });
  const id = add({ guestId: 'half', removing: true });
  observer.onEvent(sandboxId, { kind: 'resync' });
  await until(() => (store.find(id) === undefined ? true : undefined), tick);
  expect(removed).toContainEqual({ containerId: 'half' });
  await close();
});

test('a flood of events is one at a time, and the newest counts', async () => {
  let reading = 0;
  let lists = 0;
  const release = Promise.withResolvers<void>();
  const { observer, add, close, sandboxId } = observed(
    async () => {
      lists += 1;
      await release.promise;
      return { containers: [] };
    },
    async function* () {
      reading += 1;
      await release.promise;
      yield { offset: 0, data: Buffer.alloc(0), ended: true };
    },
  );
  const user = (uid: number) => ({ linux: { uid: String(uid), gid: '0', supplementalGroups: [] } });
  const id = add({ guestId: 'loud' });
  for (let exitCode = 1; exitCode <= 5000; exitCode += 1) {
    const status = guestStatus({
      id: 'loud',
      state: 'CONTAINER_EXITED',
      exitCode,
      finishedAt: '9',
      user: user(exitCode),
    });
    observer.onEvent(sandboxId, { kind: 'container', event: { containersStatuses: [status] } as never });
    observer.onEvent(sandboxId, { kind: 'resync' });
  }
  await until(() => (reading === 1 && lists === 1 ? true : undefined), tick);
  release.resolve();
  await until(() => (observer.guestFacts(id)?.user?.linux?.uid === '5000' ? true : undefined), tick);
  await close();
  // The first one and the newest.
  expect(reading).toBeLessThanOrEqual(2);
  expect(lists).toBeLessThanOrEqual(2);
});

test('a state that nobody knows is an unknown state', () => {
  const status = { ...guestStatus({ id: 'x' }), state: 77 as never };
  expect(changeFromGuest(status).state).toBe('CONTAINER_UNKNOWN');
});

test('callers who wait for the end of an attempt get one sandbox together', async () => {
  const world = await World.make(directory, { reconciler: { orphanGrace: '1ms', retryInitial: '1ms' } });
  const removing = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const { network } = world;
  const add = network.add.bind(network);
  const remove = network.remove.bind(network);
  const stuck: PodNetwork['add'] = async (_spec, stop) => {
    await systemClock.sleep(60_000, stop);
    return never();
  };
  Object.assign(network, { add: stuck });
  const slow: PodNetwork['remove'] = async (spec) => {
    removing.resolve();
    await gate.promise;
    await remove(spec);
  };
  Object.assign(network, { remove: slow });
  await using runtime = world.start();
  const pod = podConfig({ metadata: { name: 'web', uid: 'uid-1', namespace: 'default' } });
  await expect(runtime.sandboxes.run(pod, '', AbortSignal.abort())).rejects.toThrow();
  await removing.promise;
  Object.assign(network, { add });
  const both = [runtime.sandboxes.run(pod, '', signal), runtime.sandboxes.run(pod, '', signal)];
  gate.resolve();
  const [a, b] = await Promise.all(both);
  expect(b).toBe(a);
  expect(runtime.sandboxes.list()).toHaveLength(1);
  await world.provider[Symbol.asyncDispose]();
});

test('the machine of a record that cannot be read is left alone', async () => {
  const world = await World.make(directory, { reconciler: { sweep: '5ms', orphanAge: '0s' } });
  const id = newSandboxId();
  const journal = new Journal(join(directory, 'journal.db'));
  journal.putSandbox(id, { not: 'a record' }, new Uint8Array());
  journal[Symbol.dispose]();
  const shape = { cpuMillis: 1000, memoryBytes: 1, diskBytes: 1 };
  const owner = { 'infralet.dev/cluster': 'default', 'infralet.dev/node': 'node-1' };
  const launch = async (token: string, sandbox: string) =>
    await world.provider.launch(
      [{ token, tags: { ...owner, 'infralet.dev/sandbox': sandbox }, shape, userData: '{}' }],
      signal,
    );
  await launch('damaged', id);
  await launch('stray', newSandboxId());
  await using _runtime = world.start();
  const tokens = async () =>
    (await world.provider.describe({ by: 'tags', tags: {} }, signal)).map(({ token }) => token);
  await until(async () => ((await tokens()).includes('stray') ? undefined : true), tick);
  expect(await tokens()).toEqual(['damaged']);
  await world.provider[Symbol.asyncDispose]();
});
