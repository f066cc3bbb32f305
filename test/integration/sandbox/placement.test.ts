/** What a pod demands reaches the provider, whole, and again after a crash; what cannot be had makes nothing. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { abortable } from '../../../src/base/keyed-lock.ts';
import type { LaunchRequest } from '../../../src/cloud/contract.ts';
import { KillSwitch } from '../../support/kill-switch.ts';
import { podConfig } from '../../support/sandbox-records.ts';
import { World } from '../../support/world.ts';

const signal = AbortSignal.timeout(60_000);
const annotations = {
  'infralet.dev/market': 'spot-preferred',
  'infralet.dev/zone': 'b',
  'infralet.dev/disk-size': '20Gi',
  'infralet.dev/memory-request': '1Gi',
};
const pod = podConfig({ metadata: { name: 'web', uid: 'uid-1', namespace: 'shop', attempt: 0 }, annotations });
const settings = {
  profiles: { 'vmpod-gpu': { gpu: { count: 1, model: 'T4' } } },
  policy: { annotations: [{ namespaces: ['shop'], allow: ['*'] }] },
  reconciler: { retryInitial: '1ms' },
};

let directory: string;
let world: World;
let launches: LaunchRequest[];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'infralet-placement-'));
  world = await World.make(directory, settings);
  launches = [];
  const launch = world.provider.launch.bind(world.provider);
  Object.assign(world.provider, {
    launch: async (batch: readonly LaunchRequest[], stop: AbortSignal) => {
      launches.push(...batch);
      return await launch(batch, stop);
    },
  });
});
afterEach(async () => {
  await world.provider[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});
/** From now on it has a choice. */
const becomeCloud = (): unknown =>
  Object.assign(world.provider, { explain: async () => ({ ranked: [], rejected: [] }) });

test('annotations and profile reach the launch, and the launch after a crash', async () => {
  becomeCloud();
  const killSwitch = new KillSwitch(Number.POSITIVE_INFINITY, 'after');
  {
    await using counted = world.start(killSwitch);
    await counted.sandboxes.remove(await counted.sandboxes.run(pod, 'vmpod-gpu', signal), signal);
  }
  const at = killSwitch.trace.indexOf('provider.launch') + 1;
  expect(at).toBeGreaterThan(0);
  const killed = new KillSwitch(at, 'before');
  const first = world.start(killed);
  first.sandboxes.run(pod, 'vmpod-gpu', signal).catch(() => undefined);
  await abortable(killed.killed, signal);
  first.journal[Symbol.dispose]();
  launches = [];
  world.configure({ ...settings, profiles: { 'vmpod-gpu': { gpu: { count: 8 } } } });
  await using second = world.start();
  await second.sandboxes.run(pod, 'vmpod-gpu', signal);
  for (const { placement, shape } of launches) {
    expect(placement).toEqual({
      architecture: 'amd64',
      gpu: { count: 1, model: 'T4' },
      zones: ['b'],
      market: 'spot-preferred',
    });
    expect(shape.diskBytes).toBe(20 * 2 ** 30);
    expect(shape.memoryBytes).toBe(2 ** 30 + world.config.machine.overheadMemory);
  }
  expect(launches.length).toBeGreaterThan(0);
  void first[Symbol.asyncDispose]();
});

test('a pod that cannot have what it demands is refused before anything is made', async () => {
  await using daemon = world.start();
  await expect(daemon.sandboxes.run(pod, '', signal)).rejects.toThrow(
    'pod shop/web asks for a zone; the provider fake has one kind of machine',
  );
  const wrong = podConfig({ metadata: pod.metadata, annotations: { 'infralet.dev/disk-size': 'much' } });
  await expect(daemon.sandboxes.run(wrong, '', signal)).rejects.toThrow(
    'pod shop/web: annotation infralet.dev/disk-size: "much" is not a size such as 20Gi',
  );
  expect(launches).toEqual([]);
  expect(daemon.sandboxes.list()).toEqual([]);
  expect(world.network.attached.size).toBe(0);
});
