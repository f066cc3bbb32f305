/** What the command line is told of sandboxes, those included that the CRI does not list yet. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { parseInstanceId } from '../../../src/base/ids.ts';
import { until } from '../../../src/base/time.ts';
import type { Provider } from '../../../src/cloud/contract.ts';
import type { PodNetwork } from '../../../src/network/pod-network.ts';
import { loadCri } from '../../../src/rpc/load.ts';
import { machineUsages } from '../../../src/sandbox/usage.ts';
import { podConfig, sandboxRecord } from '../../support/sandbox-records.ts';
import { IMAGE, World } from '../../support/world.ts';

const signal = AbortSignal.timeout(20_000);
const used = { memoryBytes: 3, diskBytes: 4 };
const { CreateContainer } = loadCri().RuntimeService.service;

function containerConfig() {
  const bytes = CreateContainer.requestSerialize({
    config: { metadata: { name: 'app', attempt: 2 }, image: { image: IMAGE, userSpecifiedImage: 'app:1' } },
  });
  const { config } = CreateContainer.requestDeserialize(bytes);
  if (!config) throw new Error('no configuration');
  return config;
}

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'describe-'));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

test('a sandbox that is being made is told of like one that is ready', async () => {
  const world = await World.make(directory);
  const usage: Provider['usage'] = async () => used;
  Object.assign(world.provider, { usage });
  const { network } = world;
  const add = network.add.bind(network);
  const address = Promise.withResolvers<never>();
  const waiting: PodNetwork['add'] = async (spec) =>
    spec.podName === 'slow' ? await address.promise : await add(spec);
  const remove = network.remove.bind(network);
  const gone = Promise.withResolvers<void>();
  const slowly: PodNetwork['remove'] = async (spec) => {
    await gone.promise;
    await remove(spec);
  };
  Object.assign(network, { add: waiting, remove: slowly });
  await using runtime = world.start();
  const id = await runtime.sandboxes.run(podConfig(), '', signal);
  const container = await runtime.containers.create(id, containerConfig(), podConfig(), signal);
  await runtime.containers.start(container, signal);

  const metadata = { name: 'slow', uid: 'uid-2', namespace: 'default', attempt: 1 };
  const slow = runtime.sandboxes.run(podConfig({ metadata }), '', signal);
  const find = async (state: string) =>
    (await runtime.list(signal)).find((each) => each['podName'] === 'slow' && each['state'] === state);
  const making = await until(() => find('connected'), { everyMs: 1, signal });
  expect(making).toMatchObject({
    podNamespace: 'default',
    podUid: 'uid-2',
    attempt: 1,
    createdAt: expect.any(Number),
    ready: false,
    listed: false,
    wanted: 'ready',
    instanceId: expect.stringMatching(/^fake-/),
    containers: { running: 0, all: 0 },
    machine: { cpuMillis: expect.any(Number), usage: used },
  });
  expect(runtime.sandboxes.list().map((view) => view.id)).toEqual([id]);
  const all = await runtime.list(signal);
  expect(all).toHaveLength(2);
  expect(all.find((each) => each['id'] === id)).toMatchObject({
    podName: 'web',
    podUid: 'uid-1',
    state: 'ready',
    ready: true,
    listed: true,
    containers: { running: 1, all: 1 },
    machine: { usage: used },
  });
  expect(await runtime.describe(id, signal)).toMatchObject({
    machine: { usage: used },
    containers: [{ id: container, name: 'app', attempt: 2, image: 'app:1', state: 'running', exitCode: 0 }],
  });
  const makingId = String(making['id']);
  expect(await runtime.describe(makingId.slice(0, 16), signal)).toMatchObject({
    id: makingId,
    podName: 'slow',
    containers: [],
    steps: expect.arrayContaining([expect.objectContaining({ outcome: 'done' })]),
  });

  // It fails and goes; as long as something of it is there, it is told of.
  address.reject(new InfraletError('UNAVAILABLE', 'no address is free'));
  await expect(slow).rejects.toThrow('no address is free');
  expect(await find('failed')).toMatchObject({ wanted: 'removed', lastError: 'no address is free' });
  gone.resolve();
  await until(async () => ((await runtime.list(signal)).length === 1 ? true : undefined), { everyMs: 1, signal });
  await world.provider[Symbol.asyncDispose]();
});

test('a provider that fails or never answers costs a list its figures, not the list', async () => {
  const record = (name: string) => sandboxRecord({ machine: 'launched', instanceId: parseInstanceId(name) });
  let running = 0;
  let most = 0;
  const usage: Provider['usage'] = async (id) => {
    running += 1;
    most = Math.max(most, running);
    try {
      if (id.startsWith('stuck')) return await new Promise(() => undefined);
      if (id.startsWith('broken')) throw new InfraletError('INTERNAL', 'no figures');
      return await Promise.resolve(used);
    } finally {
      running -= 1;
    }
  };
  const provider = { usage } as Provider;
  const many = Array.from({ length: 100 }, (_, index) => record(`good-${index}`));
  const records = [record('stuck'), record('broken'), sandboxRecord(), ...many];
  const usages = await machineUsages(provider, records, signal, 200);
  expect(usages).toEqual([null, null, null, ...many.map(() => used)]);
  expect(most).toBeGreaterThan(1);
  expect(most).toBeLessThan(20);
  expect(await machineUsages({} as Provider, records, signal)).toEqual(records.map(() => null));
  await expect(machineUsages(provider, [record('stuck')], AbortSignal.timeout(5))).rejects.toThrow();
});
