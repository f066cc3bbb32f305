/** Machines that wait for pods: who gets one, what becomes of the others, and that no list ever shows one. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { parseSandboxId } from '../../../src/base/ids.ts';
import { until } from '../../../src/base/time.ts';
import type { Instance, MachineShape } from '../../../src/cloud/contract.ts';
import type { NodeRuntime } from '../../../src/node-runtime.ts';
import { podConfig } from '../../support/sandbox-records.ts';
import { World } from '../../support/world.ts';

const signal = AbortSignal.timeout(60_000);
const tick = { everyMs: 1, signal };
const settings = {
  reconciler: { retryInitial: '1ms', sweep: '10ms', orphanAge: '0s', poolCheck: '5ms', orphanGrace: '50ms' },
};
const pod = (n: number, change: object = {}) =>
  podConfig({ metadata: { name: `web-${n}`, uid: `uid-${n}`, namespace: 'default', attempt: 0 }, ...change });

let directory: string;
const worlds: World[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pool-'));
});
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.provider[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

async function worldWith(pools: object, more: object = {}): Promise<World> {
  const world = await World.make(directory, { ...settings, pools, ...more });
  worlds.push(world);
  return world;
}

async function machines(world: World): Promise<readonly Instance[]> {
  return await world.provider.describe({ by: 'tags', tags: {} }, signal);
}

async function waiting(runtime: NodeRuntime, count: number): Promise<readonly string[]> {
  return await until(() => {
    const [pool] = runtime.pool.view();
    const ready = pool?.waiting === count && pool.starting === 0 && pool.members.length === count;
    return ready ? pool.members.map(({ id }) => id) : undefined;
  }, tick);
}

test('a pod gets a machine that waits; it is replaced, and was in no list before', async () => {
  const world = await worldWith({ small: { size: 2 } });
  await using runtime = world.start();
  const members = await waiting(runtime, 2);
  expect(runtime.sandboxes.list()).toEqual([]);
  expect(await runtime.list(signal)).toEqual([]);
  expect(() => runtime.sandboxes.get(members[0] ?? '')).toThrow('there is no pod sandbox');
  // As for anything that is no pod: nothing happens.
  await runtime.sandboxes.stop(members[0] ?? '', signal);
  await runtime.sandboxes.remove(members[0]?.slice(0, 8) ?? '', signal);
  expect(await runtime.describe(members[0] ?? '', signal)).toMatchObject({ pool: 'small', state: 'connected' });
  const before = await machines(world);
  // Nobody gets a machine that has not rehearsed.
  expect(world.guests.rehearsals).toBe(2);

  const id = await runtime.sandboxes.run(pod(1), '', signal);
  expect(members).toContain(id);
  const view = runtime.sandboxes.get(id);
  expect(view).toMatchObject({ ready: true, config: pod(1), runtimeHandler: '' });
  expect(view.ips.length).toBeGreaterThan(0);
  const info = await runtime.describe(id, signal);
  expect(info).toMatchObject({
    pool: '',
    podName: 'web-1',
    instanceId: before.find((each) => each.tags['infralet.dev/sandbox'] === id)?.id,
  });
  expect(runtime.sandboxes.list().map((each) => each.id)).toEqual([id]);
  const [pool] = runtime.pool.view();
  expect(pool).toMatchObject({ name: 'small', claims: 1, misses: 0, failed: 0 });
  const now = await waiting(runtime, 2);
  expect(now).not.toContain(id);
  expect(await machines(world)).toHaveLength(3);
  expect(world.network.attached.size).toBe(1);

  await runtime.sandboxes.remove(id, signal);
  expect(await machines(world)).toHaveLength(2);
  expect(await waiting(runtime, 2)).not.toContain(id);
});

test('as many pods at once as there are machines get one each, the others are made', async () => {
  const world = await worldWith({ small: { size: 3 } });
  await using runtime = world.start();
  const members = await waiting(runtime, 3);
  const ids = await Promise.all([1, 2, 3, 4, 5].map(async (n) => await runtime.sandboxes.run(pod(n), '', signal)));
  expect(new Set(ids).size).toBe(5);
  expect(ids.filter((id) => members.includes(id))).toHaveLength(3);
  expect(runtime.pool.view()[0]).toMatchObject({ claims: 3, misses: 2 });
  for (const [index, id] of ids.entries()) expect(runtime.sandboxes.get(id).config).toEqual(pod(index + 1));
  await waiting(runtime, 3);
  expect(await machines(world)).toHaveLength(8);
});

test('callers of one attempt share one machine', async () => {
  const world = await worldWith({ small: { size: 2 } });
  await using runtime = world.start();
  await waiting(runtime, 2);
  const [a, b] = await Promise.all([
    runtime.sandboxes.run(pod(1), '', signal),
    runtime.sandboxes.run(pod(1), '', signal),
  ]);
  expect(a).toBe(b);
  expect(runtime.pool.view()[0]).toMatchObject({ claims: 1 });
});

test('only pods that fit get a machine, the smallest that does, and it gets their size', async () => {
  const pools = {
    large: { size: 1, cpuMillis: 4000, memory: '1Gi' },
    small: { size: 1, runtimeHandlers: ['infralet'] },
  };
  const world = await worldWith(pools);
  const sizes: MachineShape[] = [];
  const resize = async (_id: unknown, shape: MachineShape): Promise<unknown> => sizes.push(shape);
  Object.assign(world.provider, { resize });
  await using runtime = world.start();
  await until(() => (runtime.pool.view().every((pool) => pool.waiting === 1) ? true : undefined), tick);
  const claims = () => Object.fromEntries(runtime.pool.view().map((pool) => [pool.name, pool.claims]));
  const limits = (memory: number, cpuQuota: number) => ({
    linux: { resources: { memoryLimitInBytes: String(memory), cpuQuota: String(cpuQuota), cpuPeriod: '100000' } },
  });
  await runtime.sandboxes.run(pod(1), 'infralet', signal);
  expect(claims()).toEqual({ small: 1, large: 0 });
  expect(sizes).toEqual([]);
  const id = await runtime.sandboxes.run(pod(2, limits(512 * 2 ** 20, 200_000)), 'infralet', signal);
  expect(claims()).toEqual({ small: 1, large: 1 });
  expect(sizes).toEqual([{ cpuMillis: 2000, memoryBytes: (512 + 192) * 2 ** 20, diskBytes: 10 * 2 ** 30 }]);
  expect(await runtime.describe(id, signal)).toMatchObject({ machine: { cpuMillis: 2000 } });
  await until(() => (runtime.pool.view().every((pool) => pool.waiting === 1) ? true : undefined), tick);
  const own = await runtime.sandboxes.run(pod(3, limits(2 * 2 ** 30, 100_000)), 'infralet', signal);
  expect(await runtime.describe(own, signal)).toMatchObject({ machine: { memoryBytes: (2048 + 192) * 2 ** 20 } });
  expect(runtime.pool.view().map(({ misses }) => misses)).toEqual([0, 0]);
});

test('a machine that dies is replaced; one that dies as it is claimed costs its pod nothing but time', async () => {
  const world = await worldWith({ small: { size: 1 } });
  await using runtime = world.start();
  const [first = ''] = await waiting(runtime, 1);
  world.guests.disconnect(first);
  await until(
    async () => ((await machines(world)).some(({ tags }) => tags['infralet.dev/sandbox'] === first) ? undefined : true),
    tick,
  );
  const [second = ''] = await waiting(runtime, 1);
  expect(second).not.toBe(first);
  expect(runtime.pool.view()[0]).toMatchObject({ failed: 1, claims: 0 });

  world.guests.mute(second);
  const asked = runtime.sandboxes.run(pod(1), '', signal);
  expect(runtime.pool.view()[0]).toMatchObject({ claims: 1 });
  await until(async () => (world.network.attached.has(parseSandboxId(second)) ? true : undefined), tick);
  world.guests.disconnect(second);
  const id = await asked;
  expect(id).not.toBe(second);
  expect(runtime.sandboxes.get(id).ready).toBe(true);
  expect(runtime.sandboxes.list()).toHaveLength(1);
  await waiting(runtime, 1);
  expect(await machines(world)).toHaveLength(2);
  expect(world.network.attached.size).toBe(1);
});

test('a provider that makes no machines is not asked without pause, and pods go on', async () => {
  const world = await worldWith(
    { small: { size: 1 } },
    { reconciler: { ...settings.reconciler, retryInitial: '40ms' } },
  );
  let asked = 0;
  const { provider } = world;
  const launch = provider.launch.bind(provider);
  const refuse: typeof launch = async (batch, stop) => {
    if (batch.some(({ tags }) => tags['infralet.dev/pool'] === undefined)) return await launch(batch, stop);
    asked += 1;
    return batch.map(({ token }) => ({ token, ok: false, error: new InfraletError('INVALID_ARGUMENT', 'no') }));
  };
  Object.assign(provider, { launch: refuse });
  await using runtime = world.start();
  const id = await runtime.sandboxes.run(pod(1), '', signal);
  expect(runtime.sandboxes.get(id).ready).toBe(true);
  const started = Date.now();
  await until(() => ((runtime.pool.view()[0]?.failed ?? 0) >= 3 ? true : undefined), tick);
  // 40 and 80 milliseconds lie between the three, give or take the jitter.
  expect(Date.now() - started).toBeGreaterThan(60);
  // Each is tried as a clone, once more, and as a boot.
  expect(asked).toBeLessThanOrEqual(12);
  Object.assign(provider, { launch });
  await waiting(runtime, 1);
});

test('a restart keeps what waits; what the configuration no longer wants goes', async () => {
  const world = await worldWith({ small: { size: 3 } });
  let members: readonly string[];
  {
    await using runtime = world.start();
    members = await waiting(runtime, 3);
  }
  {
    await using runtime = world.start();
    expect([...(await waiting(runtime, 3))].sort()).toEqual([...members].sort());
  }
  world.configure({ ...settings, pools: { small: { size: 1 } } });
  let left = '';
  {
    await using runtime = world.start();
    [left = ''] = await waiting(runtime, 1);
    expect(members).toContain(left);
    await until(async () => ((await machines(world)).length === 1 ? true : undefined), tick);
  }
  world.configure({ ...settings, pools: { small: { size: 1, memory: '512Mi' } } });
  {
    await using runtime = world.start();
    const [other = ''] = await waiting(runtime, 1);
    expect(other).not.toBe(left);
    await until(async () => ((await machines(world)).length === 1 ? true : undefined), tick);
  }
  world.configure(settings);
  await using runtime = world.start();
  await until(async () => ((await machines(world)).length === 0 ? true : undefined), tick);
  expect(runtime.pool.view()).toEqual([]);
});

test('a pool follows the rate at which pods come, up and down', async () => {
  const size = { min: 0, max: 4, window: '2s' };
  const world = await worldWith({ small: { size } });
  await using runtime = world.start();
  expect(runtime.pool.view()[0]).toMatchObject({ target: { size: 0 }, waiting: 0 });
  const first = await runtime.sandboxes.run(pod(1), '', signal);
  expect(runtime.pool.view()[0]).toMatchObject({ misses: 1, claims: 0 });
  await until(() => ((runtime.pool.view()[0]?.waiting ?? 0) > 0 ? true : undefined), tick);
  const second = await runtime.sandboxes.run(pod(2), '', signal);
  expect(runtime.pool.view()[0]).toMatchObject({ misses: 1, claims: 1 });
  await waiting(runtime, 0);
  for (const id of [first, second]) await runtime.sandboxes.remove(id, signal);
  expect(await machines(world)).toEqual([]);
});

test('machines of an older guest image are for nobody', async () => {
  const world = await worldWith({ small: { size: 2 } });
  await using runtime = world.start();
  const old = await waiting(runtime, 2);
  world.guests.image = 'image-2';
  await until(async () => ((await waiting(runtime, 2)).some((id) => old.includes(id)) ? undefined : true), tick);
  expect((await machines(world)).some(({ tags }) => old.includes(tags['infralet.dev/sandbox'] ?? ''))).toBe(false);
  expect(runtime.pool.view()[0]).toMatchObject({ failed: 0 });
});

test('where machines can be suspended they wait so, and are resumed for their pods', async () => {
  const world = await worldWith({ cheap: { size: 2, idle: 'suspended' } });
  const states = async (): Promise<readonly string[]> => (await machines(world)).map(({ state }) => state).sort();
  await using runtime = world.start();
  const members = await waiting(runtime, 2);
  expect(await states()).toEqual(['suspended', 'suspended']);
  const id = await runtime.sandboxes.run(pod(1), '', signal);
  expect(members).toContain(id);
  await waiting(runtime, 2);
  expect(await states()).toEqual(['running', 'suspended', 'suspended']);
  // One that is gone when it is needed costs its pod nothing but time.
  const [lost] = (await machines(world)).filter(({ state }) => state === 'suspended');
  if (lost) await world.provider.terminate([lost.id], signal);
  const ids = await Promise.all([2, 3].map(async (n) => await runtime.sandboxes.run(pod(n), '', signal)));
  for (const each of ids) expect(runtime.sandboxes.get(each).ready).toBe(true);
  await waiting(runtime, 2);
});

test('a pool cannot ask for what its provider does not have', async () => {
  const world = await worldWith({ cheap: { size: 2, idle: 'suspended' } });
  Object.assign(world.provider, { power: undefined });
  expect(() => world.start()).toThrow('pools.cheap.idle: the provider fake cannot suspend machines');
  world.configure({ ...settings, pools: { cheap: { size: 2, maxHourlyCost: 1 } } });
  expect(() => world.start()).toThrow('pools.cheap.maxHourlyCost: the provider fake names no price');
  Object.assign(world.provider, { hourlyPrice: () => 0.6 });
  await using runtime = world.start();
  expect(runtime.pool.view()[0]).toMatchObject({ target: { size: 1, limitedBy: 'cost' } });
  await waiting(runtime, 1);
});

test('a daemon that stops in the middle of refills and claims goes on with them', async () => {
  const world = await worldWith({ small: { size: 4 } });
  {
    await using runtime = world.start();
    await until(() => ((runtime.pool.view()[0]?.waiting ?? 0) > 0 ? true : undefined), tick);
    void runtime.sandboxes.run(pod(1), '', signal).catch(() => undefined);
  }
  await using runtime = world.start();
  const id = await runtime.sandboxes.run(pod(1), '', signal);
  await waiting(runtime, 4);
  await until(async () => ((await machines(world)).length === 5 ? true : undefined), tick);
  await runtime.sandboxes.remove(id, signal);
  expect(world.network.attached.size).toBe(0);
});
