/** GetContainerEvents over a real socket, over machines in memory. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../../src/base/time.ts';
import { EventReader } from '../support/cri-events.ts';
import { WorldCri } from '../support/world-cri.ts';

let node: WorldCri;
beforeAll(async () => {
  node = await WorldCri.start({ events: { maxQueued: 16 } });
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

const kinds = (events: readonly { readonly containerId: string; readonly containerEventType: string }[]) =>
  events.map(({ containerId, containerEventType }) => [
    containerId.slice(0, 6),
    containerEventType.replace('CONTAINER_', '').replace('_EVENT', ''),
  ]);

test('the life of a pod: each change once, in order, with the whole pod as it is then', async () => {
  using one = await EventReader.open(node.client.socket);
  using two = await EventReader.open(node.client.socket);
  const { client } = node;
  const pod = await node.pod('life');
  const app = await node.container(pod, 'app');
  const between = await client.PodSandboxStatus({ podSandboxId: pod });
  await client.StopContainer({ containerId: app });
  await client.RemoveContainer({ containerId: app });
  await client.StopPodSandbox({ podSandboxId: pod });
  await client.RemovePodSandbox({ podSandboxId: pod });
  const events = await one.of([pod, app], 8);
  const [p, c] = [pod.slice(0, 6), app.slice(0, 6)];
  expect(kinds(events)).toEqual([
    [p, 'CREATED'],
    [p, 'STARTED'],
    [c, 'CREATED'],
    [c, 'STARTED'],
    [c, 'STOPPED'],
    [c, 'DELETED'],
    [p, 'STOPPED'],
    [p, 'DELETED'],
  ]);
  expect(kinds(await two.of([pod, app], 8))).toEqual(kinds(events));
  for (const { podSandboxStatus } of events) {
    expect(podSandboxStatus).toMatchObject({ id: pod, metadata: { uid: 'uid-life', name: 'life' } });
  }
  expect(events.map((event) => event.containersStatuses.map(({ state }) => state)[0])).toEqual([
    undefined,
    undefined,
    'CONTAINER_CREATED',
    'CONTAINER_RUNNING',
    'CONTAINER_EXITED',
    undefined,
    undefined,
    undefined,
  ]);
  expect(events.map((event) => event.podSandboxStatus?.state === 'SANDBOX_READY')).toEqual([
    ...Array.from({ length: 6 }, () => true),
    false,
    false,
  ]);
  expect(events[0]?.podSandboxStatus?.network?.ip).toMatch(/^10\./);
  const times = events.map(({ createdAt }) => BigInt(createdAt));
  expect(times).toEqual(times.toSorted((a, b) => Number(a - b)));
  expect(new Set(times).size).toBe(times.length);
  // A status that was read between two events lies between them in time as well.
  expect(BigInt(between.timestamp)).toBeGreaterThan(times[3] ?? 0n);
  expect(BigInt(between.timestamp)).toBeLessThan(times[4] ?? 0n);
});

test('a container that had ended before anybody looked has had its whole life', async () => {
  using reader = await EventReader.open(node.client.socket);
  const pod = await node.pod('brief');
  const app = await node.container(pod, 'app', {}, false);
  const guest = node.world.guests.guests.get(pod);
  const [made] = [...(guest?.containers.values() ?? [])];
  Object.assign(made ?? {}, { state: 'CONTAINER_EXITED', startedAt: '1000', finishedAt: '2000' });
  // The call fails or not: what counts is the state that is read after it.
  await node.client.StopContainer({ containerId: app });
  const events = await reader.of([app], 3);
  expect(kinds(events).map(([, kind]) => kind)).toEqual(['CREATED', 'STARTED', 'STOPPED']);
  await node.client.RemovePodSandbox({ podSandboxId: pod });
  await reader.of([pod], 4);
});

test('a reader that does not read keeps the newest of each container', async () => {
  using slow = await EventReader.open(node.client.socket, false);
  // Large enough that the connection's own buffers are full soon.
  const pod = await node.pod('slow', { filler: 'x'.repeat(200_000) });
  const ids: string[] = [];
  for (let n = 0; n < 6; n += 1) {
    const id = await node.container(pod, `c${n}`);
    await node.client.RemoveContainer({ containerId: id });
    ids.push(id);
  }
  const keeper = await node.container(pod, 'keeper');
  await node.client.StopContainer({ containerId: keeper });
  slow.read();
  await until(
    () =>
      slow.events.findLast(({ containerId }) => containerId === keeper)?.containerEventType ===
        'CONTAINER_STOPPED_EVENT' || undefined,
    {
      everyMs: 10,
      signal: AbortSignal.timeout(20_000),
    },
  );
  for (const id of ids) {
    const last = slow.events.findLast(({ containerId }) => containerId === id);
    expect(last?.containerEventType).toBe('CONTAINER_DELETED_EVENT');
  }
  await node.client.RemovePodSandbox({ podSandboxId: pod });
});

test('one that misses too much is told so, and one that listens again hears on', async () => {
  const slow = await EventReader.open(node.client.socket, false);
  const pod = await node.pod('flood', { filler: 'x'.repeat(400_000) });
  const ids: string[] = [];
  for (let n = 0; n < 40; n += 1) ids.push(await node.container(pod, `c${n}`, {}, false));
  slow.read();
  await until(() => slow.error, { everyMs: 10, signal: AbortSignal.timeout(20_000) });
  expect(slow.error).toMatchObject({ code: 8, details: expect.stringContaining('events.maxQueued') });
  slow[Symbol.dispose]();
  using again = await EventReader.open(node.client.socket);
  await node.client.StartContainer({ containerId: ids[0] ?? '' });
  expect(kinds(await again.of(ids, 1)).map(([, kind]) => kind)).toEqual(['STARTED']);
  await node.client.RemovePodSandbox({ podSandboxId: pod });
});

test('a daemon that stops ends the streams, and the next one tells on', async () => {
  using reader = await EventReader.open(node.client.socket);
  const pod = await node.pod('restart');
  const app = await node.container(pod, 'app');
  await reader.of([pod, app], 4);
  await node.shutDown();
  await until(() => reader.error, { everyMs: 10, signal: AbortSignal.timeout(20_000) });
  expect(reader.error?.code).toBe(14);
  await node.boot();
  using next = await EventReader.open(node.client.socket);
  await node.client.StopContainer({ containerId: app });
  const [stopped] = await next.of([app], 1);
  expect(stopped).toMatchObject({
    containerEventType: 'CONTAINER_STOPPED_EVENT',
    podSandboxStatus: { id: pod, state: 'SANDBOX_READY' },
    containersStatuses: [{ id: app, state: 'CONTAINER_EXITED' }],
  });
});
