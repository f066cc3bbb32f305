/** Figures of a real pod: what its processes do is seen in them, from the cgroups of the machine to the kubelet's socket. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../../src/base/time.ts';
import { EventReader } from '../support/cri-events.ts';
import { TestNode } from '../support/node.ts';
import { type TestContainer, TestPod } from '../support/pods.ts';

const MIB = 2 ** 20;

let node: TestNode;
let events: EventReader;
let pod: TestPod;
let burner: TestContainer;
let idle: TestContainer;

const soon = (seconds: number) => ({ everyMs: 200, signal: AbortSignal.timeout(seconds * 1000) });

beforeAll(async () => {
  node = await TestNode.start({ settings: { stats: { interval: '2s', layerInterval: '2s' } } });
  events = await EventReader.open(node.socket);
  pod = await TestPod.run(node);
  const memory = { linux: { resources: { memoryLimitInBytes: String(64 * MIB) } } };
  burner = await pod.start('while :; do :; done', { metadata: { name: 'burner', attempt: 0 }, ...memory });
  idle = await pod.start('httpd -f -p 8080 -h /tmp', { metadata: { name: 'idle', attempt: 0 } });
});
afterAll(async () => {
  events?.[Symbol.dispose]();
  await node?.[Symbol.asyncDispose]();
});

const of = async ({ id }: TestContainer) => (await node.cri.ListContainerStats({ filter: { id } })).stats[0];

test('there are figures right after the start; a burner burns, an idler does not', async () => {
  const { stats } = await node.cri.ContainerStats({ containerId: burner.id });
  expect(Number(stats?.cpu?.timestamp)).toBeGreaterThan(0);
  expect(Number(stats?.memory?.workingSetBytes?.value)).toBeGreaterThan(0);
  await until(async () => Number((await of(burner))?.cpu?.usageNanoCores?.value) > 100_000_000 || undefined, soon(60));
  const burnt = await of(burner);
  expect(Number(burnt?.cpu?.usageNanoCores?.value)).toBeLessThanOrEqual(1_000_000_000);
  expect(Number(burnt?.memory?.availableBytes?.value)).toBeLessThan(64 * MIB);
  expect(Number(burnt?.memory?.availableBytes?.value)).toBeGreaterThan(32 * MIB);
  const idled = await of(idle);
  expect(Number(idled?.cpu?.usageCoreNanoSeconds?.value)).toBeLessThan(Number(burnt?.cpu?.usageCoreNanoSeconds?.value));
  expect(idled?.memory?.availableBytes).toBeNull();
});

test('memory, files and traffic are counted where they are used', async () => {
  const before = await of(idle);
  await idle.sh('dd if=/dev/zero of=/written bs=1M count=8; mkdir /d; for i in 1 2 3; do echo $i >/d/$i; done');
  await until(async () => Number((await of(idle))?.writableLayer?.usedBytes?.value) >= 8 * MIB || undefined, soon(60));
  const after = await of(idle);
  expect(Number(after?.writableLayer?.usedBytes?.value)).toBeLessThan(9 * MIB);
  expect(
    Number(after?.writableLayer?.inodesUsed?.value) - Number(before?.writableLayer?.inodesUsed?.value ?? 0),
  ).toBeGreaterThanOrEqual(4);
  expect(Number((await of(burner))?.writableLayer?.usedBytes?.value)).toBeLessThan(MIB);

  const sent = async () => {
    const { stats } = await node.cri.PodSandboxStats({ podSandboxId: pod.id });
    expect(stats?.linux?.network?.defaultInterface?.name).toBe('eth0');
    expect(Number(stats?.linux?.process?.processCount?.value)).toBeGreaterThanOrEqual(3);
    return Number(stats?.linux?.network?.defaultInterface?.txBytes?.value);
  };
  await idle.sh('dd if=/dev/zero of=/tmp/zeros bs=1k count=200');
  const quiet = await sent();
  const answer = await fetch(`http://${await pod.ip()}:8080/zeros`);
  expect((await answer.arrayBuffer()).byteLength).toBe(200 * 1024);
  await until(async () => ((await sent()) - quiet > 200 * 1024 ? true : undefined), soon(60));
});

test('metrics name the pod and its containers', async () => {
  const { podMetrics } = await node.cri.ListPodSandboxMetrics();
  const mine = podMetrics.find(({ podSandboxId }) => podSandboxId === pod.id);
  const burnt = mine?.containerMetrics
    .find(({ containerId }) => containerId === burner.id)
    ?.metrics.find(({ name }) => name === 'container_cpu_usage_seconds_total');
  expect(Number(burnt?.value?.value)).toBeGreaterThan(0);
  expect(burnt?.labelValues.slice(-2)).toEqual(['burner', 'total']);
  expect(mine?.metrics.map(({ name }) => name)).toContain('container_network_receive_bytes_total');
});

test('events tell of the pod from its beginning to its end', async () => {
  await node.cri.StopContainer({ containerId: burner.id }, { timeoutMs: 60_000 });
  await pod.remove();
  const told = await events.of([pod.id, burner.id], 8);
  expect(told.map((event) => event.containerEventType.split('_')[1])).toEqual(
    expect.arrayContaining(['CREATED', 'STARTED', 'STOPPED', 'DELETED']),
  );
  const exit = told.find(
    (event) => event.containerId === burner.id && event.containerEventType === 'CONTAINER_STOPPED_EVENT',
  );
  expect(exit?.containersStatuses.find(({ id }) => id === burner.id)?.exitCode).toBe(137);
  expect(told.at(-1)).toMatchObject({ containerId: pod.id, containerEventType: 'CONTAINER_DELETED_EVENT' });
  expect((await node.cri.ListContainerStats()).stats).toEqual([]);
});
