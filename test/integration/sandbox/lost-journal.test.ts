/** The journal's file is lost while pods run: the next daemon makes it anew, and the pods see nothing of it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { ContainerId, SandboxId } from '../../../src/base/ids.ts';
import { abortable } from '../../../src/base/keyed-lock.ts';
import { until } from '../../../src/base/time.ts';
import { loadCri } from '../../../src/rpc/load.ts';
import { KillSwitch } from '../../support/kill-switch.ts';
import { podConfig } from '../../support/sandbox-records.ts';
import { IMAGE, World } from '../../support/world.ts';

const signal = AbortSignal.timeout(110_000);
const tick = { everyMs: 2, signal };
const pod = podConfig({
  metadata: { name: 'web', uid: 'uid-1', namespace: 'default', attempt: 0 },
  labels: { a: 'b' },
});
const { CreateContainer } = loadCri().RuntimeService.service;
const app = (name: string) => {
  const { config } = CreateContainer.requestDeserialize(
    CreateContainer.requestSerialize({ config: { metadata: { name, attempt: 0 }, image: { image: IMAGE } } }),
  );
  if (!config) throw new Error('no container configuration');
  return config;
};

let directory: string;
let world: World;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'infralet-lost-'));
  world = await World.make(directory, { reconciler: { retryInitial: '1ms', sweep: '5ms', orphanAge: '0s' } });
});
afterEach(async () => {
  await world.provider[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

interface Running {
  readonly sandbox: SandboxId;
  readonly runs: ContainerId;
  readonly ended: ContainerId;
  readonly removed: ContainerId;
}

/** A pod with a container that runs, one that has ended and one that is no more; then the daemon and its journal go. */
async function runThenLose(): Promise<Running> {
  await using daemon = world.start();
  const sandbox = await daemon.sandboxes.run(pod, '', signal);
  const make = async (name: string): Promise<ContainerId> => {
    const id = await daemon.containers.create(sandbox, app(name), pod, signal);
    await daemon.containers.start(id, signal);
    return id;
  };
  const [runs, ended, removed] = [await make('runs'), await make('ended'), await make('removed')];
  for (const id of [ended, removed]) await daemon.containers.stop(id, 1, signal);
  await daemon.containers.remove(removed, signal);
  return { sandbox, runs, ended, removed };
}

const machines = async (): Promise<number> => (await world.provider.describe({ by: 'tags', tags: {} }, signal)).length;

test('pods and containers are as they were, and their machine was asked to do nothing', async () => {
  const { sandbox, runs, ended } = await runThenLose();
  await world.loseJournal();
  const asked: string[] = [];
  world.guests.onCall = (method) => void asked.push(method);
  {
    await using daemon = world.start();
    expect(daemon.sandboxes.list().map(({ id }) => id)).toEqual([sandbox]);
    const [address] = daemon.sandboxes.get(sandbox).ips;
    expect(address).toMatch(/^10\.0\.0\./);
    expect(daemon.sandboxes.get(sandbox)).toMatchObject({ ready: true, config: pod });
    await until(() => (asked.includes('ContainerStatus') ? true : undefined), tick);
    expect(daemon.containers.get(runs)).toMatchObject({ state: 'CONTAINER_RUNNING', config: app('runs') });
    expect(daemon.containers.get(ended)).toMatchObject({ state: 'CONTAINER_EXITED' });
    expect(daemon.containers.list()).toHaveLength(2);
    // A kubelet that asks for the same attempt gets the same sandbox.
    expect(await daemon.sandboxes.run(pod, '', signal)).toBe(sandbox);
    expect(new Set(asked)).toEqual(new Set(['ListContainers', 'ContainerStatus']));
    expect(await machines()).toBe(1);
    expect(world.network.attached.size).toBe(1);
  }
  // It is in the journal from now on, and comes to its end as any other.
  await using daemon = world.start();
  expect(daemon.containers.list()).toHaveLength(2);
  await until(() => (world.guests.guests.get(sandbox)?.channels.size === 1 ? true : undefined), tick);
  await daemon.sandboxes.stop(sandbox, signal);
  await daemon.sandboxes.remove(sandbox, signal);
  expect(await machines()).toBe(0);
  expect(world.network.attached.size).toBe(0);
  expect(world.podFiles.ids()).toEqual([]);
});

test('a pod whose address came with its machine needs no note of a network', async () => {
  await world.provider[Symbol.asyncDispose]();
  const reconciler = { retryInitial: '1ms', sweep: '5ms', orphanAge: '0s' };
  world = await World.make(directory, { reconciler, providers: { fake: { directPods: true } } });
  const { sandbox, runs } = await runThenLose();
  await world.loseJournal();
  const asked: string[] = [];
  world.guests.onCall = (method) => void asked.push(method);
  await using daemon = world.start();
  await until(() => (asked.includes('ContainerStatus') ? true : undefined), tick);
  expect(daemon.sandboxes.get(sandbox)).toMatchObject({ ready: true, ips: [expect.stringMatching(/^198\.18\./)] });
  expect(daemon.containers.get(runs).state).toBe('CONTAINER_RUNNING');
  expect(await machines()).toBe(1);
});

test('a pod that was asked to end does not come back; its machine is nobody’s', async () => {
  {
    await using daemon = world.start();
    const sandbox = await daemon.sandboxes.run(pod, '', signal);
    await daemon.sandboxes.stop(sandbox, signal);
  }
  await world.loseJournal();
  await using daemon = world.start();
  expect(daemon.sandboxes.list()).toEqual([]);
});

test('without the note of its network a pod cannot be kept: it fails, and its machine goes', async () => {
  const { sandbox, runs } = await runThenLose();
  await world.loseJournal();
  world.network.attached.clear();
  await using daemon = world.start();
  await until(async () => ((await machines()) === 0 ? true : undefined), tick);
  expect(daemon.sandboxes.get(sandbox).ready).toBe(false);
  expect(daemon.containers.get(runs).state).toBe('CONTAINER_EXITED');
});

test('a machine that cannot prove itself is not taken back', async () => {
  const { sandbox } = await runThenLose();
  await world.loseJournal();
  world.guests.disconnect(sandbox);
  await using daemon = world.start();
  await until(() => (daemon.sandboxes.get(sandbox).ready ? undefined : true), tick);
  await until(async () => ((await machines()) === 0 ? true : undefined), tick);
});

test('without copies, too, nothing is left to be paid for', async () => {
  const { sandbox } = await runThenLose();
  await world.loseJournal();
  world.podFiles.dropSandbox(sandbox);
  await using daemon = world.start();
  expect(daemon.sandboxes.list()).toEqual([]);
  await until(async () => ((await machines()) === 0 && world.network.attached.size === 0 ? true : undefined), tick);
});

test('killed at any effect of a pod’s start, and the journal lost: the pod is there once when it is asked for again', async () => {
  const start = async (daemon: ReturnType<World['start']>): Promise<void> => {
    const sandbox = await daemon.sandboxes.run(pod, '', signal);
    const id = await daemon.containers.create(sandbox, app('app'), pod, signal);
    await daemon.containers.start(id, signal);
  };
  const counting = new KillSwitch(Number.POSITIVE_INFINITY, 'after');
  {
    await using daemon = world.start(counting);
    await start(daemon);
    for (const { id } of daemon.sandboxes.list()) await daemon.sandboxes.remove(id, signal);
  }
  const effects = counting.trace.length;
  let kept = 0;
  for (let n = 1; n <= effects; n += 2) {
    world.guests.guests.clear();
    const killSwitch = new KillSwitch(n, n % 4 === 1 ? 'after' : 'before');
    const first = world.start(killSwitch);
    const ended = start(first).catch(() => undefined);
    await abortable(Promise.race([killSwitch.killed, ended]), signal);
    first.journal[Symbol.dispose]();
    await world.loseJournal();
    {
      await using second = world.start();
      const listed = second.sandboxes.list();
      kept += listed.length;
      const sandbox = await second.sandboxes.run(pod, '', signal);
      expect(
        listed.every(({ id }) => id === sandbox),
        `effect ${n}`,
      ).toBe(true);
      await until(async () => ((await machines()) === 1 && world.network.attached.size === 1 ? true : undefined), tick);
      for (const { id } of second.containers.list()) await second.containers.remove(id, signal).catch(() => undefined);
      await second.sandboxes.stop(sandbox, signal);
      await second.sandboxes.remove(sandbox, signal);
      await until(async () => ((await machines()) === 0 && world.network.attached.size === 0 ? true : undefined), tick);
      expect(world.podFiles.ids(), `effect ${n}`).toEqual([]);
    }
    void first[Symbol.asyncDispose]();
  }
  expect(kept).toBeGreaterThan(0);
  expect(kept).toBeLessThan(effects / 2);
});
