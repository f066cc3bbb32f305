/** Figures over a real socket: from what fake machines send to what a kubelet reads. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { until } from '../../src/base/time.ts';
import { WorldCri } from '../support/world-cri.ts';

let node: WorldCri;
let web: string;
let db: string;
let main: string;
let sidecar: string;
let other: string;
let idle: string;

const soon = () => ({ everyMs: 20, signal: AbortSignal.timeout(10_000) });

beforeAll(async () => {
  node = await WorldCri.start({ stats: { interval: '500ms' } });
  [web, db] = await Promise.all([node.pod('web', { tier: 'front' }), node.pod('db', { tier: 'back' })]);
  main = await node.container(web, 'main', { app: 'web' });
  sidecar = await node.container(web, 'sidecar', { app: 'web', role: 'sidecar' });
  other = await node.container(db, 'main', { app: 'db' });
  idle = await node.container(db, 'idle', { app: 'db' }, false);
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('containers', () => {
  test('a container that was just started has figures', async () => {
    const { stats } = await node.client.ContainerStats({ containerId: main });
    expect(stats).toMatchObject({
      attributes: { id: main, metadata: { name: 'main', attempt: 0 }, labels: { app: 'web' } },
      memory: {
        usageBytes: { value: String(30 * 2 ** 20) },
        workingSetBytes: { value: String(22 * 2 ** 20) },
        rssBytes: { value: String(10 * 2 ** 20) },
        pageFaults: { value: '12345' },
        majorPageFaults: { value: '12' },
        availableBytes: null,
        psi: { Some: { Avg10: 1.5 }, Full: { Avg60: 0.75 } },
      },
      writableLayer: {
        fsId: { mountpoint: expect.stringMatching(/\/images$/) },
        usedBytes: { value: '12288' },
        inodesUsed: { value: '3' },
      },
      swap: { swapUsageBytes: { value: '0' }, swapAvailableBytes: { value: '0' } },
      io: { psi: { Some: { Avg10: 1.5 } } },
    });
    const now = BigInt(Date.now()) * 1_000_000n;
    for (const part of [stats?.cpu, stats?.memory, stats?.swap, stats?.io]) {
      expect(now - BigInt(part?.timestamp ?? 0)).toBeLessThan(5_000_000_000n);
    }
  });

  test('a rate comes with the second sample, and lists never ask a machine', async () => {
    const guest = node.world.guests.guests.get(web);
    const rate = await until(async () => {
      const { stats } = await node.client.ListContainerStats({ filter: { id: main } });
      return stats[0]?.cpu?.usageNanoCores?.value;
    }, soon());
    expect(Math.abs(Number(rate) - 500_000_000)).toBeLessThan(20_000_000);
    const asked = guest?.asked ?? 0;
    for (let n = 0; n < 20; n += 1) {
      await node.client.ListContainerStats();
      await node.client.ListPodSandboxStats();
      await node.client.StreamContainerStats();
    }
    expect(guest?.asked).toBe(asked);
  });

  test('lists: filters add up; what does not run has no figures', async () => {
    const list = async (filter: object) =>
      (await node.client.ListContainerStats({ filter })).stats.map(({ attributes }) => attributes?.id ?? '').sort();
    expect(await list({})).toEqual([main, sidecar, other, idle].sort());
    expect((await node.client.ListContainerStats()).stats.length).toBe(4);
    expect(await list({ podSandboxId: web })).toEqual([main, sidecar].sort());
    expect(await list({ podSandboxId: db.slice(0, 12), labelSelector: { app: 'db' } })).toEqual([other, idle].sort());
    expect(await list({ labelSelector: { app: 'web', role: 'sidecar' } })).toEqual([sidecar]);
    expect(await list({ id: other.slice(0, 20) })).toEqual([other]);
    expect(await list({ id: other, podSandboxId: web })).toEqual([]);
    expect(await list({ labelSelector: { app: 'nothing' } })).toEqual([]);
    const [created] = (await node.client.ListContainerStats({ filter: { id: idle } })).stats;
    expect(created).toMatchObject({ attributes: { id: idle }, cpu: null, memory: null });
    await expect(node.client.ContainerStats({ containerId: idle })).rejects.toMatchObject({ code: 9 });
    await expect(node.client.ContainerStats({ containerId: 'f'.repeat(64) })).rejects.toMatchObject({ code: 5 });
    await expect(node.client.ContainerStats({ containerId: '' })).rejects.toMatchObject({ code: 3 });
  });

  test('each sample shows: an answer is never an old one encoded again', async () => {
    const usage = async () => {
      const [one] = (await node.client.ListContainerStats({ filter: { podSandboxId: db } })).stats.filter(
        ({ cpu }) => cpu,
      );
      return BigInt(one?.cpu?.usageCoreNanoSeconds?.value ?? 0);
    };
    const first = await until(async () => (await usage()) || undefined, soon());
    await until(async () => ((await usage()) > first ? true : undefined), soon());
  });
});

describe('pods', () => {
  test('figures of the whole pod, with its containers', async () => {
    const { stats } = await node.client.PodSandboxStats({ podSandboxId: web.slice(0, 12) });
    expect(stats).toMatchObject({
      attributes: { id: web, metadata: { name: 'web', namespace: 'default' }, labels: { tier: 'front' } },
      linux: {
        memory: { usageBytes: { value: String(30 * 2 ** 20) } },
        process: { processCount: { value: '3' } },
        network: {
          defaultInterface: { name: 'eth0', rxBytes: { value: '1000' }, txBytes: { value: '2000' } },
          interfaces: [{ name: 'eth0' }],
        },
      },
    });
    expect(stats?.linux?.containers.map(({ attributes }) => attributes?.id)).toEqual([main, sidecar]);
    const { stats: all } = await node.client.ListPodSandboxStats();
    expect(all.map(({ attributes }) => attributes?.id ?? '').sort()).toEqual([web, db].sort());
    const { stats: back } = await node.client.ListPodSandboxStats({ filter: { labelSelector: { tier: 'back' } } });
    expect(back.map(({ attributes }) => attributes?.id)).toEqual([db]);
    expect(
      (await node.client.ListPodSandboxStats({ filter: { id: db, labelSelector: { tier: 'front' } } })).stats,
    ).toEqual([]);
  });
});

test('metrics: every value has as many labels as its descriptor has keys', async () => {
  const { descriptors } = await node.client.ListMetricDescriptors();
  const keys = new Map(descriptors.map(({ name, labelKeys }) => [name, labelKeys]));
  expect(keys.size).toBe(descriptors.length);
  expect(descriptors.every(({ name, help }) => /^container_[a-z_]+$/.test(name) && help.endsWith('.'))).toBe(true);
  const { podMetrics } = await node.client.ListPodSandboxMetrics();
  expect(podMetrics.map(({ podSandboxId }) => podSandboxId).sort()).toEqual([web, db].sort());
  const pod = podMetrics.find(({ podSandboxId }) => podSandboxId === web);
  const all = [...(pod?.metrics ?? []), ...(pod?.containerMetrics ?? []).flatMap(({ metrics }) => metrics)];
  for (const { name, labelValues } of all) expect([name, labelValues.length]).toEqual([name, keys.get(name)?.length]);
  const labelled = (containerId: string, name: string) => {
    const metric = pod?.containerMetrics
      .find((each) => each.containerId === containerId)
      ?.metrics.find((each) => each.name === name);
    const labels = Object.fromEntries((keys.get(name) ?? []).map((key, at) => [key, metric?.labelValues[at]]));
    return { value: Number(metric?.value?.value), type: metric?.metricType, labels };
  };
  expect(labelled(main, 'container_memory_working_set_bytes')).toEqual({
    value: 22 * 2 ** 20,
    type: 'GAUGE',
    labels: { id: main, image: expect.stringMatching(/^sha256:/), namespace: 'default', pod: 'web', container: 'main' },
  });
  const cpu = labelled(sidecar, 'container_cpu_usage_seconds_total');
  expect(cpu).toMatchObject({ type: 'COUNTER', labels: { container: 'sidecar', cpu: 'total' } });
  expect(Math.abs(cpu.value - performance.now() / 2000)).toBeLessThan(5);
  const received = pod?.metrics.find(({ name }) => name === 'container_network_receive_bytes_total');
  expect(received).toMatchObject({ value: { value: '1000' }, labelValues: [web, '', 'default', 'web', 'POD', 'eth0'] });
  // One that has nothing to show does not show zeros.
  expect(pod?.containerMetrics.every(({ containerId }) => [main, sidecar].includes(containerId))).toBe(true);
});

test('streams give what the lists give', async () => {
  const ids = (items: readonly { readonly id: string }[]) => items.map(({ id }) => id).sort();
  const cri = node.client;
  expect(ids((await cri.StreamPodSandboxes()).flatMap(({ podSandboxes }) => podSandboxes))).toEqual([web, db].sort());
  const front = await cri.StreamPodSandboxes({ filter: { labelSelector: { tier: 'front' } } });
  expect(ids(front.flatMap(({ podSandboxes }) => podSandboxes))).toEqual([web]);
  const containers = await cri.StreamContainers({ filter: { podSandboxId: web } });
  expect(containers.flatMap((piece) => piece.containers)).toEqual(
    (await cri.ListContainers({ filter: { podSandboxId: web } })).containers,
  );
  const running = await cri.StreamContainers({ filter: { state: { state: 'CONTAINER_RUNNING' } } });
  expect(ids(running.flatMap((piece) => piece.containers))).toEqual([main, sidecar, other].sort());
  const stats = await cri.StreamContainerStats({ filter: { labelSelector: { app: 'db' } } });
  expect(
    ids(stats.flatMap((piece) => piece.containerStats.map(({ attributes }) => ({ id: attributes?.id ?? '' })))),
  ).toEqual([other, idle].sort());
  const pods = await cri.StreamPodSandboxStats();
  expect(pods.flatMap((piece) => piece.podSandboxStats.map(({ linux }) => linux?.containers.length))).toEqual([2, 2]);
  const metrics = await cri.StreamPodSandboxMetrics();
  expect(metrics.flatMap((piece) => piece.podSandboxMetrics.map(({ podSandboxId }) => podSandboxId)).sort()).toEqual(
    [web, db].sort(),
  );
  await cri.PullImage({ image: { image: 'registry.example/app:1' } });
  const images = await cri.StreamImages();
  expect(images.flatMap((piece) => piece.images)).toEqual((await cri.ListImages()).images);
  // Nothing is an answer, too.
  expect(await cri.StreamContainers({ filter: { id: 'nothing' } })).toEqual([{ containers: [] }]);
});

test('after its end: attributes and what it has written, no more; and nothing of a pod that is not ready', async () => {
  const podSandboxId = await node.pod('short');
  const containerId = await node.container(podSandboxId, 'main');
  await node.client.ContainerStats({ containerId });
  await node.client.StopContainer({ containerId });
  const listed = async () => (await node.client.ListContainerStats({ filter: { id: containerId } })).stats[0];
  expect(await listed()).toMatchObject({ cpu: null, memory: null, writableLayer: { usedBytes: { value: '12288' } } });
  await expect(node.client.ContainerStats({ containerId })).rejects.toMatchObject({ code: 9 });
  await node.client.StopPodSandbox({ podSandboxId });
  await expect(node.client.PodSandboxStats({ podSandboxId })).rejects.toMatchObject({ code: 14 });
  const { stats } = await node.client.ListPodSandboxStats();
  expect(stats.map(({ attributes }) => attributes?.id)).not.toContain(podSandboxId);
  await node.client.RemovePodSandbox({ podSandboxId });
  expect(await listed()).toBeUndefined();
});

test('a machine that lies: about others nothing, about itself not more than it can be', async () => {
  const podSandboxId = await node.pod('liar');
  const guest = node.world.guests.guests.get(podSandboxId);
  if (!guest) throw new Error('the machine is missing');
  const victim = [...(node.world.guests.guests.get(web)?.containers.keys() ?? [])];
  const huge = '18446744073709551615';
  guest.lie = (sample) => ({
    ...sample,
    pod: { cpuUs: huge, memory: huge, pids: huge },
    containers: [
      ...victim.map((id) => ({ id, usage: { cpuUs: 1, memory: 1 } })),
      ...(sample.containers ?? []).map((each) => ({ ...each, usage: { cpuUs: huge, memory: huge } })),
      ...Array.from({ length: 1000 }, () => ({ id: 'f'.repeat(64), usage: {} })),
    ],
  });
  const containerId = await node.container(podSandboxId, 'main');
  const { stats } = await node.client.ContainerStats({ containerId });
  expect(Number(stats?.memory?.usageBytes?.value)).toBe(
    node.world.config.machine.defaultMemory + node.world.config.machine.overheadMemory,
  );
  const { stats: pod } = await node.client.PodSandboxStats({ podSandboxId });
  expect(pod?.linux?.process?.processCount?.value).toBe('4194304');
  const { stats: honest } = await node.client.ContainerStats({ containerId: main });
  expect(honest?.memory?.usageBytes?.value).toBe(String(30 * 2 ** 20));
  await node.client.RemovePodSandbox({ podSandboxId });
});

test('after a restart of the daemon the machines tell again', async () => {
  await node.shutDown();
  await node.boot();
  await until(async () => {
    const { stats } = await node.client.ListContainerStats({ filter: { podSandboxId: web } });
    return stats.length === 2 && stats.every(({ cpu }) => cpu) ? true : undefined;
  }, soon());
});
