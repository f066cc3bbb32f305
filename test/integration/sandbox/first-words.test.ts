/** What a machine is told first: a clone of its pod at once, where the pod has its network and fits. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { podConfig } from '../../support/sandbox-records.ts';
import { World } from '../../support/world.ts';

const signal = AbortSignal.timeout(20_000);

let directory: string;
let world: World;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'first-words-'));
  world = await World.make(directory);
});
afterEach(async () => {
  await world.provider[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

async function run(change: object): Promise<{ readonly ran: boolean; readonly id: string }> {
  await using runtime = world.start();
  const id = await runtime.sandboxes.run(podConfig(change), '', signal);
  const known = await runtime.describe(id, signal);
  const phases = ['connected', 'guest', 'ready'].map((phase) => expect.objectContaining({ phase }));
  expect(known).toMatchObject({ timeline: expect.arrayContaining(phases) });
  return { ran: JSON.stringify(known['steps']).includes('"guest.run"'), id };
}

/** Longer than a machine takes to connect. */
function slowNetwork(until: Promise<void>): void {
  const { network } = world;
  const add = network.add.bind(network);
  const slow: typeof add = async (spec) => {
    await until;
    return await add(spec);
  };
  Object.assign(network, { add: slow });
}

/** Resolves when the first machine has connected. */
async function connected(): Promise<void> {
  const enrol = world.guests.enrol.bind(world.guests);
  const { promise, resolve } = Promise.withResolvers<void>();
  const noted: typeof enrol = async (...call) => {
    const channel = await enrol(...call);
    const configure = channel.configure.bind(channel);
    return Object.assign(channel, {
      configure: async (...words: Parameters<typeof configure>) => {
        const answer = await configure(...words);
        resolve();
        return answer;
      },
    });
  };
  Object.assign(world.guests, { enrol: noted });
  await promise;
}

/** As the machine's launch takes longer than the network in every real provider. */
function slowMachine(): void {
  const enrol = world.guests.enrol.bind(world.guests);
  const { network } = world;
  const add = network.add.bind(network);
  const { promise, resolve } = Promise.withResolvers<void>();
  const noted: typeof add = async (spec) => {
    const result = await add(spec);
    setImmediate(resolve);
    return result;
  };
  const late: typeof enrol = async (...call) => {
    await promise;
    return await enrol(...call);
  };
  Object.assign(network, { add: noted });
  Object.assign(world.guests, { enrol: late });
}

test('a clone hears of its pod with its first words', async () => {
  world.guests.cloned = true;
  slowMachine();
  const { ran, id } = await run({ hostname: 'web' });
  expect(ran).toBe(false);
  expect(world.guests.guests.get(id)).toMatchObject({ hostname: 'web', sandbox: 'c0ffee' });
});

test('a pod whose network comes later is told of later', async () => {
  world.guests.cloned = true;
  slowNetwork(connected());
  const { ran, id } = await run({ hostname: 'web' });
  expect(ran).toBe(true);
  expect(world.guests.guests.get(id)).toMatchObject({ hostname: 'web' });
});

test('a machine that booted, or a pod that does not fit, gets a sandbox made for it', async () => {
  slowMachine();
  const booted = await run({});
  expect(booted.ran).toBe(true);
  world.guests.cloned = true;
  const metadata = { name: 'b', uid: 'b', namespace: 'b', attempt: 0 };
  const { ran, id } = await run({ metadata, linux: { sysctls: { 'net.core.somaxconn': '1' } } });
  expect(ran).toBe(true);
  expect(world.guests.guests.get(id)).toMatchObject({ hostname: 'template' });
});
