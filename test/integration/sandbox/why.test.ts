/** `infralet why`: the causes of a sandbox's state, also of one that is gone, also after the daemon has been away. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { InfraletError } from '../../../src/base/errors.ts';
import { until } from '../../../src/base/time.ts';
import type { NodeRuntime } from '../../../src/node-runtime.ts';
import { podConfig } from '../../support/sandbox-records.ts';
import { World } from '../../support/world.ts';

const signal = AbortSignal.timeout(30_000);
const event = z.object({
  ms: z.number(),
  kind: z.string(),
  outcome: z.string(),
  tookMs: z.number().optional(),
  name: z.string(),
  text: z.string(),
});
const schema = z.object({
  id: z.string(),
  attempt: z.number(),
  removedAt: z.number().nullable(),
  instanceId: z.string(),
  start: z.string(),
  verdict: z.object({ kind: z.string(), text: z.string(), next: z.string() }),
  events: z.array(event),
  consoleTail: z.string(),
  others: z.array(z.object({ attempt: z.number() })),
});
const why = async (runtime: NodeRuntime, pod: string) => schema.parse(await runtime.why(pod, signal));
const pod = (name: string, attempt = 0) =>
  podConfig({ metadata: { name, uid: `uid-${name}`, namespace: 'shop', attempt } });

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'why-'));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

test('a pod that has failed and is gone: each step, the step that failed, the console; also after a restart', async () => {
  const world = await World.make(directory, {
    isolation: { templateSharing: 'off' },
    providers: { fake: { faults: [{ call: 'launch', kind: 'transient' }] } },
  });
  const { network } = world;
  const join = async (): Promise<never> => {
    throw new InfraletError('FAILED_PRECONDITION', 'the bridge br0 is full', { hint: 'add another' });
  };
  Object.assign(network, { join });
  Object.assign(world.provider, { console: async () => 'Linux version 6.12\nagent: up' });
  let id = '';
  {
    await using runtime = world.start();
    await expect(runtime.sandboxes.run(pod('web'), '', signal)).rejects.toMatchObject({
      message: expect.stringMatching(/^pod shop\/web: the bridge br0 is full/),
      hint: expect.stringContaining('infralet why'),
    });
    await until(async () => ((await why(runtime, 'shop/web')).removedAt === null ? undefined : true), {
      everyMs: 5,
      signal,
    });
    const told = await why(runtime, 'web');
    id = told.id;
    expect(told.verdict).toMatchObject({
      kind: 'failed',
      text: expect.stringMatching(/network\.join failed: the bridge br0 is full/),
    });
    expect(told.start).toBe('boot');
    expect(told.consoleTail).toContain('agent: up');
    const names = told.events.map(({ name, outcome }) => `${name} ${outcome}`.trim());
    const order = ['asked', 'machine.launch done', 'network.join failed', 'failed', 'machine.terminate done'];
    expect(names.filter((name) => order.includes(name))).toEqual(order);
    expect(told.events.find(({ kind }) => kind === 'note')?.text).toMatch(/launch 1 failed for now.*transient/);
    const launch = told.events.find(({ name, kind }) => name === 'machine.launch' && kind === 'step');
    expect(launch?.tookMs).toBeGreaterThan(0);
  }
  {
    await using runtime = world.start();
    for (const name of [id.slice(0, 8), 'uid-web', 'shop/web', 'web']) {
      expect((await why(runtime, name)).id).toBe(id);
    }
    await expect(runtime.why('other/web', signal)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  }
  await world.provider[Symbol.asyncDispose]();
});

test('a pod that is being made: what it waits for; one that is ready; one that was removed as asked', async () => {
  const world = await World.make(directory, { isolation: { templateSharing: 'off' } });
  const { network } = world;
  const add = network.add.bind(network);
  const address = Promise.withResolvers<void>();
  Object.assign(network, {
    add: async (spec: Parameters<typeof add>[0]) => {
      await address.promise;
      return await add(spec);
    },
  });
  await using runtime = world.start();
  const running = runtime.sandboxes.run(pod('db'), '', signal);
  await until(async () => ((await why(runtime, 'db')).instanceId === '' ? undefined : true), { everyMs: 5, signal });
  const making = await why(runtime, 'db');
  expect(making.verdict).toMatchObject({ kind: 'waiting', text: expect.stringContaining('network.add (0.') });
  expect(making.events.find(({ name }) => name === 'network.add')?.outcome).toBe('open');
  address.resolve();
  const id = await running;
  expect((await why(runtime, 'db')).verdict.kind).toBe('ready');
  await runtime.sandboxes.stop(id, signal);
  expect((await why(runtime, 'db')).verdict.kind).toBe('stopped');
  await runtime.sandboxes.remove(id, signal);
  const again = await runtime.sandboxes.run(pod('db', 1), '', signal);
  const newest = await why(runtime, 'db');
  expect([newest.id, newest.attempt, newest.others.map(({ attempt }) => attempt)]).toEqual([again, 1, [0]]);
  const first = await why(runtime, id.slice(0, 12));
  expect(first.verdict).toMatchObject({ kind: 'removed', text: expect.stringContaining('was ready') });
  const wishes = first.events.filter(({ kind }) => kind === 'asked').map(({ name }) => name);
  expect(wishes).toEqual(['asked', 'stop-asked', 'remove-asked']);
  await world.provider[Symbol.asyncDispose]();
});

test('the journal keeps as many as configured: failures are not pushed out by pods that went well', async () => {
  const world = await World.make(directory, { isolation: { templateSharing: 'off' }, reconciler: { keepEnded: 2 } });
  const { network } = world;
  const real = network.add.bind(network);
  Object.assign(network, {
    add: async (spec: Parameters<typeof real>[0]) => {
      if (spec.podName.startsWith('bad')) throw new InfraletError('UNAVAILABLE', 'no address');
      return await real(spec);
    },
  });
  await using runtime = world.start();
  const gone = async (name: string) =>
    await until(async () => ((await why(runtime, name)).removedAt === null ? undefined : true), { everyMs: 5, signal });
  await expect(runtime.sandboxes.run(pod('bad'), '', signal)).rejects.toThrow('no address');
  await gone('bad');
  for (const name of ['a', 'b', 'c']) {
    await runtime.sandboxes.remove(await runtime.sandboxes.run(pod(name), '', signal), signal);
  }
  expect((await why(runtime, 'bad')).verdict.kind).toBe('failed');
  await expect(runtime.why('shop/a', signal)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  expect((await why(runtime, 'shop/b')).events.some(({ name }) => name === 'guest.run')).toBe(true);
  expect(runtime.journal.ended()).toHaveLength(3);
  await world.provider[Symbol.asyncDispose]();
});
