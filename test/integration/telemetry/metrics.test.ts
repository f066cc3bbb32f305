/** Figures, scraped over HTTP from a node in memory after pods were run, failed and taken from a pool. */

import { once } from 'node:events';
import { Server } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { newSandboxId, parseInstanceId } from '../../../src/base/ids.ts';
import { until } from '../../../src/base/time.ts';
import { measureCloud } from '../../../src/cloud/meters.ts';
import type { AgentChannel } from '../../../src/guest/channel.ts';
import { measuredDialer } from '../../../src/guest/meters.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { type MetricsServer, startMetrics } from '../../../src/telemetry/metrics.ts';
import { FakeGuests } from '../../support/fake-guest.ts';
import { scrape } from '../../support/scrape.ts';
import { WorldCri } from '../../support/world-cri.ts';

const signal = AbortSignal.timeout(30_000);
const options = { address: '127.0.0.1', port: 0, version: '1.2.3', log: nullLogger };

let metrics: MetricsServer;
beforeEach(async () => {
  metrics = await startMetrics(options);
});
afterEach(async () => {
  await metrics[Symbol.asyncDispose]();
});

test('starts, steps, calls, costs and states are what has happened; pods have no series of their own', async () => {
  await using node = await WorldCri.start(
    { isolation: { templateSharing: 'off' }, providers: { fake: { hourlyPrice: 0.25 } } },
    { meters: metrics.meters },
  );
  const { network } = node.world;
  const add = network.add.bind(network);
  Object.assign(network, {
    add: async (spec: Parameters<typeof add>[0]) => {
      if (spec.podName === 'bad') throw new InfraletError('UNAVAILABLE', 'no address left');
      return await add(spec);
    },
  });
  const first = await node.pod('web-one');
  const second = await node.pod('web-two');
  await expect(node.pod('bad')).rejects.toThrow('no address left');
  await node.client.StopPodSandbox({ podSandboxId: first });
  // The failed one is taken down in the background.
  await until(async () => (node.runtime.sandboxes.list().length === 2 ? true : undefined), { everyMs: 5, signal });
  const seen = await until(
    async () => {
      const values = await scrape(metrics.url);
      return values.get('infralet_sandboxes{state="failed"}') === 0 ? values : undefined;
    },
    { everyMs: 20, signal },
  );
  const at = (series: string): number => seen.get(series) ?? Number.NaN;
  expect(at('infralet_build_info{version="1.2.3"}')).toBe(1);
  expect(at('infralet_sandbox_starts_total{outcome="ready",start="boot"}')).toBe(2);
  const failed = [...seen].filter(([name]) => name.startsWith('infralet_sandbox_starts_total{outcome="failed"'));
  expect(failed.reduce((sum, [, value]) => sum + value, 0)).toBe(1);
  expect(at('infralet_sandbox_start_seconds_count{start="boot"}')).toBe(2);
  expect(at('infralet_sandbox_start_seconds_sum{start="boot"}')).toBeGreaterThan(0);
  for (const phase of ['turn', 'network', 'launch', 'enrolled', 'connected', 'joined', 'guest', 'ready']) {
    expect([phase, at(`infralet_sandbox_phase_seconds_count{phase="${phase}",start="boot"}`)]).toEqual([phase, 2]);
  }
  expect(at('infralet_step_seconds_count{outcome="done",step="guest.run"}')).toBe(2);
  expect(at('infralet_step_seconds_count{outcome="failed",step="network.add"}')).toBe(1);
  expect(at('infralet_cri_call_seconds_count{code="OK",method="RunPodSandbox"}')).toBe(2);
  expect(at('infralet_cri_call_seconds_count{code="UNKNOWN",method="RunPodSandbox"}')).toBe(1);
  expect(at('infralet_cri_call_seconds_count{code="OK",method="StopPodSandbox"}')).toBe(1);
  expect(at('infralet_sandboxes{state="ready"}')).toBe(1);
  expect(at('infralet_sandboxes{state="stopped"}')).toBe(1);
  expect(at('infralet_agent_sessions')).toBe(1);
  expect(at('infralet_startup_gate_waiting{kind="pod"}')).toBe(0);
  expect(at('infralet_machine_dollars_per_hour{namespace="default"}')).toBeGreaterThan(0);
  expect(at('infralet_orphans{kind="machine"}')).toBe(0);
  expect(at('process_resident_memory_bytes')).toBeGreaterThan(1e6);
  expect([...seen.keys()].filter((name) => name.includes('web-one') || name.includes(first))).toEqual([]);
  node.world.guests.say(second, { kind: 'interruption', action: 'terminate', noticeMs: 1000 });
  await until(async () => (await scrape(metrics.url)).get('infralet_interruptions_total') === 1 || undefined, {
    everyMs: 20,
    signal,
  });
});

test('a pool: what waits, what was claimed and missed; its pods start as of a pool', async () => {
  await using node = await WorldCri.start(
    { isolation: { templateSharing: 'off' }, pools: { small: { size: 1 } } },
    { meters: metrics.meters },
  );
  const ready = async () =>
    await until(
      async () => {
        const values = await scrape(metrics.url);
        return values.get('infralet_pool_machines{pool="small",state="waiting"}') === 1 ? values : undefined;
      },
      { everyMs: 20, signal },
    );
  await ready();
  await node.pod('pooled');
  const seen = await ready();
  expect(seen.get('infralet_pool_claims_total{pool="small"}')).toBe(1);
  expect(seen.get('infralet_pool_misses_total{pool="small"}')).toBe(0);
  expect(seen.get('infralet_sandbox_starts_total{outcome="ready",start="pool"}')).toBe(1);
  expect(seen.get('infralet_sandbox_phase_seconds_count{phase="network",start="pool"}')).toBe(1);
  // Its machine was launched before anybody asked for it.
  expect(seen.get('infralet_sandbox_phase_seconds_count{phase="launch",start="pool"}')).toBeUndefined();
  expect(seen.get('infralet_sandboxes{state="connected"}')).toBe(0);
});

test('only /metrics is there, only for reading; a figure that cannot be read leaves the others', async () => {
  measureCloud(metrics.meters, {
    figures: () => {
      throw new Error('the provider is gone');
    },
  });
  metrics.meters.read('gauge', 'infralet_test', 'A figure.', ['kind'], async () => [[{ kind: 'a"b' }, 7]]);
  expect((await scrape(metrics.url)).get('infralet_test{kind="a\\"b"}')).toBe(7);
  expect((await scrape(metrics.url)).get('infralet_test{kind="a\\"b"}')).toBe(7);
  const other = new URL('/other', metrics.url);
  expect((await fetch(other)).status).toBe(404);
  expect((await fetch(metrics.url, { method: 'POST', body: 'x' })).status).toBe(405);
  expect(await (await fetch(metrics.url, { method: 'HEAD' })).text()).toBe('');
});

test('calls to the cloud by class and outcome, throttles and queues', async () => {
  measureCloud(metrics.meters, {
    figures: () => ({
      calls: [{ class: 'launch', outcome: 'no-capacity', count: 3, seconds: 1.5 }],
      classes: [{ class: 'launch', waiting: 4, throttles: 2 }],
    }),
  });
  const seen = await scrape(metrics.url);
  expect(seen.get('infralet_cloud_calls_total{class="launch",outcome="no-capacity"}')).toBe(3);
  expect(seen.get('infralet_cloud_call_seconds_total{class="launch",outcome="no-capacity"}')).toBe(1.5);
  expect(seen.get('infralet_cloud_waiting{class="launch"}')).toBe(4);
  expect(seen.get('infralet_cloud_throttles_total{class="launch"}')).toBe(2);
});

test('what guests say and nobody believes is counted, from the first handshake to the last stream', async () => {
  const guests = new FakeGuests();
  const lie = (code: 'DATA_LOSS' | 'RESOURCE_EXHAUSTED' | 'PERMISSION_DENIED' | 'UNAVAILABLE') =>
    new InfraletError(code, 'no');
  const channel: Pick<AgentChannel, 'readFile' | 'takeSample'> = {
    readFile: async function* () {
      yield Buffer.from('x');
      throw lie('DATA_LOSS');
    },
    takeSample: async () => await Promise.reject(lie('RESOURCE_EXHAUSTED')),
  };
  const dialer = measuredDialer(metrics.meters, {
    newToken: () => guests.newToken(),
    userData: (token) => guests.userData(token),
    enrol: async () => await Promise.reject(lie('PERMISSION_DENIED')),
    connect: async ({ port }) => (port === 1 ? (channel as AgentChannel) : await Promise.reject(lie('UNAVAILABLE'))),
  });
  const identity = { sandboxId: newSandboxId(), instanceId: parseInstanceId('i-1') };
  const call = { signal, timeoutMs: 1000 };
  await expect(dialer.enrol({ host: 'h', port: 1 }, identity, 't', call)).rejects.toThrow('no');
  await expect(dialer.connect({ host: 'h', port: 2 }, identity, call)).rejects.toThrow('no');
  const made = await dialer.connect({ host: 'h', port: 1 }, identity, call);
  await expect(made.takeSample(call)).rejects.toThrow('no');
  const bytes: Buffer[] = [];
  const read = async (): Promise<void> => {
    for await (const data of made.readFile('ROOT_LOGS', 'l', 10, signal)) bytes.push(data);
  };
  await expect(read()).rejects.toThrow('no');
  expect(Buffer.concat(bytes).toString()).toBe('x');
  const seen = await scrape(metrics.url);
  for (const what of ['peer', 'malformed', 'too-large']) {
    expect([what, seen.get(`infralet_guest_refusals_total{what="${what}"}`)]).toEqual([what, 1]);
  }
});

test('a port that is taken is refused with what to do', async () => {
  const taken = new Server().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const address = taken.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  await expect(startMetrics({ ...options, port })).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
    hint: expect.stringContaining('metrics.port'),
  });
  taken.close();
  await once(taken, 'close');
});
