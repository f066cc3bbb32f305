/**
 * The daemon is killed at every effect it has on the outside, before and after, through the whole life of a pod; then it
 * starts again on the same journal. Afterwards everything asked for exists exactly once, and nothing else does.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { abortable } from '../../../src/base/keyed-lock.ts';
import { until } from '../../../src/base/time.ts';
import type { NodeRuntime } from '../../../src/node-runtime.ts';
import { loadCri } from '../../../src/rpc/load.ts';
import { KillSwitch } from '../../support/kill-switch.ts';
import { podConfig } from '../../support/sandbox-records.ts';
import { IMAGE, World } from '../../support/world.ts';

const signal = AbortSignal.timeout(300_000);
const { CreateContainer } = loadCri().RuntimeService.service;
const container = CreateContainer.requestDeserialize(
  CreateContainer.requestSerialize({
    config: { metadata: { name: 'app', attempt: 0 }, image: { image: IMAGE }, command: ['/app'], logPath: 'app.log' },
  }),
).config;
if (!container) throw new Error('no container configuration');
const app = container;

type Begin = (runtime: NodeRuntime) => Promise<void>;

/** What a kubelet does with a pod, from its start to its end. */
async function life(runtime: NodeRuntime): Promise<void> {
  const sandbox = await runtime.sandboxes.run(pod, '', signal);
  const id = await runtime.containers.create(sandbox, app, pod, signal);
  await runtime.containers.start(id, signal);
  await runtime.containers.stop(id, 1, signal);
  await runtime.containers.remove(id, signal);
  await runtime.sandboxes.stop(sandbox, signal);
  await runtime.sandboxes.remove(sandbox, signal);
}

/** A pod takes a machine that waits, and another one comes after it. */
async function claim(runtime: NodeRuntime): Promise<void> {
  await poolsFull(runtime);
  const sandbox = await runtime.sandboxes.run(pod, '', signal);
  expect(runtime.sandboxes.get(sandbox).ready).toBe(true);
  expect(runtime.pool.view()[0]?.claims).toBe(1);
  await poolsFull(runtime);
}

let directory: string;
let pod: ReturnType<typeof podConfig>;
let world: World;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'crash-'));
  pod = podConfig({
    metadata: { name: 'web', uid: 'uid-1', namespace: 'default', attempt: 0 },
    logDirectory: join(directory, 'logs'),
  });
  world = await World.make(directory, { reconciler: { retryInitial: '1ms', sweep: '20ms', orphanAge: '0s' } });
});
afterEach(async () => {
  await world.provider[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

async function machines(): Promise<number> {
  const all = await world.provider.describe({ by: 'tags', tags: {} }, signal);
  return all.filter(({ state }) => state !== 'terminated').length;
}

async function count(begin: Begin): Promise<readonly string[]> {
  const killSwitch = new KillSwitch(Number.POSITIVE_INFINITY, 'after');
  await using counted = world.start(killSwitch);
  await begin(counted);
  const effects = [...killSwitch.trace];
  for (const { id } of counted.sandboxes.list()) await counted.sandboxes.remove(id, signal);
  return effects;
}

/** Kills the daemon at every effect of `begin`, and looks at what the next one makes of it. */
async function killEverywhere(
  begin: Begin,
  whens: readonly ('before' | 'after')[] = ['before', 'after'],
): Promise<readonly string[]> {
  const effects = await count(begin);
  await emptied('counting the effects');
  for (const when of whens) {
    for (let n = 1; n <= effects.length; n += 1)
      await killAt(begin, n, when, `killed ${when} effect ${n} (${effects[n - 1]})`);
  }
  return effects;
}

async function killAt(begin: Begin, n: number, when: 'before' | 'after', where: string): Promise<void> {
  const killSwitch = new KillSwitch(n, when);
  const first = world.start(killSwitch);
  // What goes on side by side does not always take as many effects.
  const ended = begin(first).catch(() => undefined);
  await abortable(Promise.race([killSwitch.killed, ended]), signal);
  first.journal[Symbol.dispose]();
  {
    await using second = world.start();
    // A kubelet that sees the sandbox uses it; one that does not asks again for the same pod and attempt.
    const listed = second.sandboxes.list();
    const survivor = listed[0];
    expect(listed.length, where).toBeLessThanOrEqual(1);
    const sandbox = survivor?.ready ? survivor.id : survivor ? undefined : await second.sandboxes.run(pod, '', signal);
    const pooled = await poolsFull(second);
    if (sandbox !== undefined) {
      await until(async () => ((await machines()) === 1 + pooled ? true : undefined), limit(where));
      expect(world.network.attached.size, where).toBe(world.provider.directPods === true ? 0 : 1);
      const owners = (await world.provider.describe({ by: 'tags', tags: {} }, signal)).map(({ tags }) => tags);
      expect(new Set(owners.map((tags) => tags['infralet.dev/sandbox'])).size, where).toBe(1 + pooled);
      expect(second.sandboxes.get(sandbox).config, where).toEqual(pod);
    }
    for (const { id } of second.sandboxes.list()) {
      await second.sandboxes.stop(id, signal);
      await second.sandboxes.remove(id, signal);
    }
    expect(second.sandboxes.list(), where).toEqual([]);
    expect(second.containers.list(), where).toEqual([]);
    await until(async () => (world.network.attached.size === 0 ? true : undefined), limit(where));
  }
  // What hangs in the dead daemon stays hanging; this only takes its timers away.
  void first[Symbol.asyncDispose]();
  await emptied(where);
}

/** Nothing is left once no pool wants anything either. */
async function emptied(where: string): Promise<void> {
  const { config } = world;
  world.config = { ...config, pools: {} };
  {
    await using _last = world.start();
    await until(async () => ((await machines()) === 0 ? true : undefined), limit(where));
    expect(world.network.attached.size, where).toBe(0);
  }
  world.config = config;
  world.guests.guests.clear();
}

/** Machines in pools, once they are as many as they should be. */
async function poolsFull(runtime: NodeRuntime): Promise<number> {
  const full = () => runtime.pool.view().every(({ waiting, target }) => waiting === target.size);
  await until(() => (full() ? true : undefined), { everyMs: 1, signal });
  return runtime.pool.view().reduce((sum, { waiting }) => sum + waiting, 0);
}

function limit(where: string): { readonly everyMs: number; readonly signal: AbortSignal } {
  const over = new AbortController();
  const timeout = AbortSignal.timeout(10_000);
  timeout.addEventListener('abort', () => over.abort(new Error(`${where}: something is there that should not be`)));
  return { everyMs: 2, signal: AbortSignal.any([signal, over.signal]) };
}

describe('a daemon killed in the middle', () => {
  test('of anything leaves no machine, no network and no record behind once the pod is gone', async () => {
    const effects = await killEverywhere(life);
    expect(effects).toContain('provider.launch');
    expect(effects).toContain('guest.RunPodSandbox');
  });

  test('where machines bring the addresses of their pods: the same, and the node never makes a network', async () => {
    await world.provider[Symbol.asyncDispose]();
    const providers = { fake: { directPods: true } };
    world = await World.make(directory, {
      reconciler: { retryInitial: '1ms', sweep: '20ms', orphanAge: '0s' },
      providers,
    });
    const effects = await killEverywhere(life);
    expect(effects).toContain('guest.RunPodSandbox');
    expect(effects).not.toContain('network.add');
    expect(effects).not.toContain('network.join');
    await using runtime = world.start();
    const sandbox = await runtime.sandboxes.run(pod, '', signal);
    expect(runtime.sandboxes.get(sandbox).ips).toEqual([expect.stringMatching(/^198\.18\.0\./)]);
    const ports = { ...pod, portMappings: [{ protocol: 'TCP', containerPort: 80, hostPort: 80, hostIp: '' } as const] };
    const other = { ...ports, metadata: { name: 'port', uid: 'uid-2', namespace: 'default', attempt: 0 } };
    await expect(runtime.sandboxes.run(other, '', signal)).rejects.toThrow(
      /default\/port asks for port 80 of the node/,
    );
    await runtime.sandboxes.remove(sandbox, signal);
  });

  test('of a claim leaves a machine that waits or a pod, never both and never neither', async () => {
    const pools = { one: { size: 1, cpuMillis: 2000 } };
    world.configure({ reconciler: { retryInitial: '1ms', sweep: '20ms', orphanAge: '0s', poolCheck: '5ms' }, pools });
    const effects = await killEverywhere(claim);
    expect(effects).toContain('journal.replaceSandbox');
    expect(effects).toContain('provider.resize');
  });

  test('of suspending or resuming a machine neither', async () => {
    const pools = { one: { size: 1, idle: 'suspended' } };
    world.configure({ reconciler: { retryInitial: '1ms', sweep: '20ms', orphanAge: '0s', poolCheck: '5ms' }, pools });
    const effects = await killEverywhere(claim, ['after']);
    expect(effects).toEqual(expect.arrayContaining(['power.suspend', 'power.resume']));
  });

  test('leaves a ready pod and its running container as they are', async () => {
    const first = world.start();
    const sandbox = await first.sandboxes.run(pod, '', signal);
    const id = await first.containers.create(sandbox, app, pod, signal);
    await first.containers.start(id, signal);
    await first[Symbol.asyncDispose]();
    await using second = world.start();
    expect(second.sandboxes.get(sandbox)).toMatchObject({ ready: true, config: pod });
    expect(second.containers.get(id)).toMatchObject({ state: 'CONTAINER_RUNNING', config: app });
    expect(await machines()).toBe(1);
  });

  test('two calls for one attempt make one machine', async () => {
    await using runtime = world.start();
    const [a, b] = await Promise.all([runtime.sandboxes.run(pod, '', signal), runtime.sandboxes.run(pod, '', signal)]);
    expect(a).toBe(b);
    expect(await machines()).toBe(1);
    await runtime.sandboxes.remove(a, signal);
    expect(await machines()).toBe(0);
  });

  test('a caller that gives up is followed by one that joins the work in progress', async () => {
    await using runtime = world.start();
    const impatient = runtime.sandboxes.run(pod, '', AbortSignal.abort());
    await expect(impatient).rejects.toThrow();
    const sandbox = await runtime.sandboxes.run(pod, '', signal);
    expect(runtime.sandboxes.get(sandbox).ready).toBe(true);
    expect(await machines()).toBe(1);
  });

  test('machines and networks that nobody owns are swept away', async () => {
    const owner = {
      'infralet.dev/cluster': 'default',
      'infralet.dev/node': 'node-1',
      'infralet.dev/sandbox': 'f'.repeat(32),
    };
    const shape = { cpuMillis: 1000, memoryBytes: 1, diskBytes: 1 };
    await world.provider.launch([{ token: 'stray', tags: owner, shape, userData: '{}' }], signal);
    await using _runtime = world.start();
    await until(async () => ((await machines()) === 0 ? true : undefined), { everyMs: 5, signal });
  });
});
