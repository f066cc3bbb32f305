/** A kubelet removes containers while their pod is being stopped: the machine may go at any moment, and that is no error. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import type { NodeRuntime } from '../../../src/node-runtime.ts';
import { containerConfig } from '../../support/cri-requests.ts';
import { podConfig } from '../../support/sandbox-records.ts';
import { IMAGE, World } from '../../support/world.ts';

const signal = AbortSignal.timeout(60_000);
const broken = new InfraletError('UNAVAILABLE', 'the channel to the agent was closed');

let directory: string;
let world: World;
let runtime: NodeRuntime;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'removal-'));
  world = await World.make(directory);
  runtime = world.start();
});
afterEach(async () => {
  await runtime[Symbol.asyncDispose]();
  await world.provider[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

async function runningContainer() {
  const sandbox = await runtime.sandboxes.run(podConfig(), '', signal);
  const container = await runtime.containers.create(
    sandbox,
    containerConfig({ image: { image: IMAGE } }),
    undefined,
    signal,
  );
  await runtime.containers.start(container, signal);
  return { sandbox, container };
}

test.each(['StopContainer', 'RemoveContainer'])('the machine goes during %s', async (rpc) => {
  const { sandbox, container } = await runningContainer();
  let stopping: Promise<void> | undefined;
  world.guests.onCall = (method) => {
    if (method !== rpc) return;
    world.guests.onCall = () => undefined;
    stopping = runtime.sandboxes.stop(sandbox, signal);
    throw broken;
  };
  await runtime.containers.remove(container, signal);
  expect(stopping).toBeDefined();
  await stopping;
  expect(runtime.containers.list()).toEqual([]);
  await runtime.sandboxes.remove(sandbox, signal);
  expect(world.network.attached.size).toBe(0);
});

test('a container whose creation was given up on does not stand in the way of the next try', async () => {
  const sandbox = await runtime.sandboxes.run(podConfig(), '', signal);
  const guest = world.guests.guests.get(sandbox);
  const create = () =>
    runtime.containers.create(sandbox, containerConfig({ image: { image: IMAGE } }), undefined, signal);
  let given = false;
  world.guests.onCall = (method, request) => {
    // A busy guest takes its time until it removes what nobody wants.
    if (method === 'RemoveContainer') throw broken;
    if (method !== 'CreateContainer' || given) return;
    given = true;
    // The guest goes on with it; the caller has gone.
    guest?.call(method, request as Record<string, unknown>);
    throw new InfraletError('DEADLINE_EXCEEDED', 'it took too long');
  };
  await expect(create()).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  const container = await create();
  expect(guest?.containers.size).toBe(2);
  expect(runtime.containers.list().map(({ id }) => id)).toEqual([container]);
  await runtime.containers.start(container, signal);
});

test('a removal that fails while the pod is to stay is told, and can be repeated', async () => {
  const { container } = await runningContainer();
  world.guests.onCall = (method) => {
    if (method === 'RemoveContainer') throw broken;
  };
  await expect(runtime.containers.remove(container, signal)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  world.guests.onCall = () => undefined;
  await runtime.containers.remove(container, signal);
  expect(runtime.containers.list()).toEqual([]);
});

test('a stop that the machine answers before it knows of the end is not done before', async () => {
  const { sandbox, container } = await runningContainer();
  const guest = world.guests.guests.get(sandbox);
  if (!guest) throw new Error('the sandbox has no guest');
  const end = guest.end.bind(guest);
  const unheard: [id: string, exitCode: number][] = [];
  guest.end = (...args) => unheard.push(args);
  let looks = 0;
  world.guests.onCall = (method) => {
    if (method !== 'ContainerStatus') return;
    looks += 1;
    if (looks === 3) for (const args of unheard) end(...args);
  };
  await runtime.containers.stop(container, 0, signal);
  expect(looks).toBeGreaterThanOrEqual(3);
  expect(runtime.containers.get(container).state).toBe('CONTAINER_EXITED');
});
