/** A machine whose cloud takes it back: containers end in good order, and everybody can see why. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import type { ContainerId, SandboxId } from '../../../src/base/ids.ts';
import { until } from '../../../src/base/time.ts';
import type { NodeRuntime } from '../../../src/node-runtime.ts';
import { loadCri } from '../../../src/rpc/load.ts';
import { podConfig } from '../../support/sandbox-records.ts';
import { IMAGE, World } from '../../support/world.ts';

const signal = AbortSignal.timeout(60_000);
const settings = { isolation: { templateSharing: 'off' }, reconciler: { retryInitial: '1ms' } };
const WHY = /^the cloud takes the pod's machine back: terminate in 120 s/;
const codec = loadCri().RuntimeService.service.CreateContainer;

let directory: string;
let world: World;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'interruption-'));
  world = await World.make(directory, settings);
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

const soon = async <T>(probe: () => Promise<T | undefined> | T | undefined): Promise<T> =>
  await until(probe, { everyMs: 5, signal });

const sandbox = podConfig({ metadata: { name: 'web', uid: 'uid-web', namespace: 'shop', attempt: 0 } });

async function container(runtime: NodeRuntime, id: string, name: string): Promise<ContainerId> {
  const bytes = codec.requestSerialize({
    podSandboxId: id,
    config: { metadata: { name, attempt: 0 }, image: { image: IMAGE }, logPath: '' },
  });
  const { config } = codec.requestDeserialize(bytes);
  if (!config) throw new Error('no config');
  return await runtime.containers.create(id, config, sandbox, signal);
}

const tell = (id: string, noticeMs = 120_000): void =>
  world.guests.say(id, { kind: 'interruption', action: 'terminate', noticeMs });
const whyOf = async (runtime: NodeRuntime, id: string) =>
  z
    .object({
      verdict: z.object({ kind: z.string(), text: z.string() }),
      events: z.array(z.object({ text: z.string() })),
    })
    .parse(await runtime.why(id, signal));

test('its containers get SIGTERM within the notice; pod and containers say why, to the kubelet and to people', async () => {
  await using runtime = world.start();
  const id = await runtime.sandboxes.run(sandbox, '', signal);
  const [one, two] = [await container(runtime, id, 'one'), await container(runtime, id, 'two')];
  await runtime.containers.start(one, signal);
  await runtime.containers.start(two, signal);
  const late = await container(runtime, id, 'late');
  using events = runtime.events.subscribe();
  const stops: { readonly timeout: string; readonly ready: boolean }[] = [];
  world.guests.onCall = (method, request) => {
    if (method !== 'StopContainer') return;
    const { timeout } = z.object({ timeout: z.string() }).parse(request);
    stops.push({ timeout, ready: runtime.sandboxes.get(id).ready });
  };
  tell(id);
  tell(id, 119_000);
  await soon(() => (runtime.sandboxes.describe(id)['state'] === 'failed' ? true : undefined));
  // Not ready from the first word on, each container once, with the notice but for what is kept back.
  expect(stops).toEqual([
    { timeout: '110', ready: false },
    { timeout: '110', ready: false },
  ]);
  expect(runtime.sandboxes.get(id)).toMatchObject({ ready: false, ips: [] });
  for (const each of [one, two]) {
    expect(runtime.containers.get(each).status()).toMatchObject({
      state: 'CONTAINER_EXITED',
      exitCode: 143,
      reason: 'SpotInterruption',
      message: expect.stringMatching(WHY),
    });
  }
  // One that never ran went with its machine.
  expect(runtime.containers.get(late).status()).toMatchObject({ exitCode: 137, reason: 'SpotInterruption' });
  await expect(container(runtime, id, 'more')).rejects.toThrow(/is not ready \(the cloud takes/);

  const told = await whyOf(runtime, id);
  expect(told.verdict).toEqual({ kind: 'failed', text: expect.stringMatching(WHY) });
  const texts = told.events.map(({ text }) => text);
  expect(texts).toContainEqual('the cloud has announced that it takes the machine back');
  expect(texts).toContainEqual(expect.stringMatching(/stopping 2 containers with 110 s of grace$/));

  const seen: (readonly [string, string])[] = [];
  while (seen.length < 4) {
    const { id: about, kind, sandbox: view } = await events.next(signal);
    if (kind === 'stopped') seen.push([about, String(view.ready)]);
  }
  expect(seen[0]).toEqual([id, 'false']);
  // The machine goes, the pod stays in lists until the kubelet removes it.
  await soon(async () =>
    (await world.provider.describe({ by: 'tags', tags: { 'infralet.dev/sandbox': id } }, signal)).every(
      ({ state }) => state === 'terminated',
    )
      ? true
      : undefined,
  );
  expect(runtime.sandboxes.list().map((view) => view.id)).toEqual([id]);
  await runtime.sandboxes.remove(id, signal);
});

test('half a minute is divided as well; a daemon that is killed meanwhile goes on; no notice is no excuse', async () => {
  let id: SandboxId;
  let main: ContainerId;
  {
    await using runtime = world.start();
    id = await runtime.sandboxes.run(sandbox, '', signal);
    main = await container(runtime, id, 'main');
    await runtime.containers.start(main, signal);
    const asked = Promise.withResolvers<string>();
    world.guests.onCall = (method, request) => {
      if (method !== 'StopContainer') return;
      world.guests.mute(id);
      asked.resolve(z.object({ timeout: z.string() }).parse(request).timeout);
    };
    tell(id, 30_000);
    expect(await asked.promise).toBe('25');
    // The guest hangs, and the daemon ends.
  }
  const guest = world.guests.guests.get(id);
  if (guest) guest.mute = false;
  world.guests.onCall = () => undefined;
  await using runtime = world.start();
  expect(runtime.sandboxes.get(id).ready).toBe(false);
  expect((await whyOf(runtime, id)).verdict).toMatchObject({
    kind: 'waiting',
    text: expect.stringMatching(/being stopped$/),
  });
  // The agent says it anew to whoever watches.
  await soon(() => ((guest?.channels.size ?? 0) > 0 ? true : undefined));
  await soon(() => {
    tell(id, 0);
    return runtime.sandboxes.describe(id)['state'] === 'failed' ? true : undefined;
  });
  expect(runtime.containers.get(main).status()).toMatchObject({
    reason: 'SpotInterruption',
    message: expect.stringMatching(/in 30 s/),
  });
});

test('a machine that waits in a pool is replaced; a word about a pod that is not there changes nothing', async () => {
  world.configure({ ...settings, pools: { spare: { size: 1 } } });
  await using runtime = world.start();
  const waiting = (): string | undefined => {
    const [pool] = runtime.pool.view();
    return pool?.waiting === 1 ? pool.members.find(({ state }) => state === 'connected')?.id : undefined;
  };
  const first = await soon(waiting);
  tell(first);
  const second = await soon(() => {
    const found = waiting();
    return found === first ? undefined : found;
  });
  expect(second).not.toBe(first);
  expect((await whyOf(runtime, first)).verdict.text).toMatch(WHY);
  tell('0'.repeat(32));
});
