/**
 * A thousand pods that just run, on a fake EC2 with its published limits, by the real SDK and a virtual clock: what the node asks
 * of the cloud per minute does not grow with their number, and /metrics tells exactly what the cloud has counted.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { type LaunchRequest, ownerTags, TAGS } from '../../../src/cloud/contract.ts';
import type { CloudDriver } from '../../../src/cloud/kit.ts';
import { LaunchStore } from '../../../src/cloud/launch-store.ts';
import { measureCloud } from '../../../src/cloud/meters.ts';
import { CloudProvider } from '../../../src/cloud/provider.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { Sweeper } from '../../../src/sandbox/sweeper.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { startMetrics } from '../../../src/telemetry/metrics.ts';
import { VirtualClock } from '../../support/cloud/virtual-clock.ts';
import { awsParts } from '../../support/fake-ec2/open.ts';
import { type FakeEc2, startFakeEc2 } from '../../support/fake-ec2/server.ts';
import { scrape } from '../../support/scrape.ts';

const OWNER = ownerTags('c', 'n');
const SHAPE = { cpuMillis: 1000, memoryBytes: 2 ** 30, diskBytes: 10 * 2 ** 30 };
const MINUTES = 30;

let ec2: FakeEc2;
let clock: VirtualClock;
let directory: string;
let provider: CloudProvider;
let count = 0;
const signal = AbortSignal.timeout(110_000);

const request = (): LaunchRequest => {
  count += 1;
  return {
    token: `launch-${count}`,
    tags: { ...OWNER, [TAGS.sandbox]: `s${count}` },
    shape: SHAPE,
    userData: `{"version":1,"token":"t${count}"}`,
  };
};

beforeEach(async () => {
  clock = new VirtualClock();
  ec2 = await startFakeEc2({ now: () => clock.now(), pendingMs: 20_000, lagMs: 3000 });
  directory = await mkdtemp(join(tmpdir(), 'infralet-steady-'));
  const settings = { describeEvery: '1s', terminateIdle: '100ms', retryInitial: '500ms' };
  const { driver, config } = awsParts({ endpoint: ec2.endpoint, settings }, clock);
  const hold: CloudDriver = {
    ...driver,
    catalogue: (stop) => clock.hold(() => driver.catalogue(stop)),
    launch: (call, stop) => clock.hold(() => driver.launch(call, stop)),
    list: (tags, stop) => clock.hold(() => driver.list(tags, stop)),
    terminate: (ids, stop) => clock.hold(() => driver.terminate(ids, stop)),
    ...(driver.leftovers
      ? {
          leftovers: {
            ...driver.leftovers,
            list: (tags, stop) => clock.hold(async () => (await driver.leftovers?.list(tags, stop)) ?? []),
          },
        }
      : {}),
  };
  const store = new LaunchStore(':memory:');
  provider = new CloudProvider({ driver: hold, config, store, owner: OWNER, clock, log: nullLogger });
});
afterEach(async () => {
  await provider[Symbol.asyncDispose]();
  await ec2[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

/** Calls per minute, by action, while so many machines run and nothing happens. */
async function perMinute(machines: number): Promise<Readonly<Record<string, number>>> {
  const missing = machines - ec2.cloud.alive.length;
  const results = await clock.run(
    Promise.all(Array.from({ length: missing }, async () => (await provider.launch([request()], signal))[0])),
  );
  for (const result of results) if (!result?.ok) throw InfraletError.from(result?.error);
  expect(ec2.cloud.alive).toHaveLength(machines);
  const sweeper = new Sweeper({
    ...{ config: configSchema.parse({ cluster: 'c' }), nodeName: 'n', provider, clock, log: nullLogger },
    network: { list: async () => [], remove: async () => undefined },
    store: { knows: () => true },
  });
  // The young daemon looks more often; what comes after it is the steady state.
  sweeper.start();
  await clock.run(clock.sleep(10 * 60_000, signal));
  const from = ec2.calls.length;
  await clock.run(clock.sleep(MINUTES * 60_000, signal));
  const calls: Record<string, number> = {};
  for (const { action } of ec2.calls.slice(from)) calls[action] = (calls[action] ?? 0) + 1 / MINUTES;
  await sweeper[Symbol.asyncDispose]();
  return calls;
}

test('1,000 machines ask as much of the cloud per minute as 10 do, and the figures say what the cloud has seen', async () => {
  const ten = await perMinute(10);
  const thousand = await perMinute(1000);
  expect(thousand).toEqual(ten);
  // One sweep a minute: the machines, and three kinds of what they may have left behind.
  expect(Object.values(thousand).reduce((sum, each) => sum + each, 0)).toBeLessThanOrEqual(4.2);
  expect(thousand['DescribeInstances']).toBeLessThanOrEqual(1.1);

  // Somebody else spends from the same account, and a call fails.
  ec2.cloud.script.push(
    { action: 'TerminateInstances', when: 'before', code: 'RequestLimitExceeded', status: 503 },
    { action: 'TerminateInstances', when: 'before', code: 'InternalError', status: 500 },
  );
  const [first] = await clock.run(provider.describe({ by: 'tags', tags: OWNER }, signal));
  if (!first) throw new Error('there is no machine');
  await clock.run(provider.terminate([first.id], signal));
  await using metrics = await startMetrics({ address: '127.0.0.1', port: 0, version: '1', log: nullLogger });
  measureCloud(metrics.meters, provider);
  const seen = await scrape(metrics.url);
  const counted = (of: string, outcome: string): number =>
    seen.get(`infralet_cloud_calls_total{class="${of}",outcome="${outcome}"}`) ?? 0;
  const made = (action: string, outcome: string): number =>
    ec2.calls.filter((each) => each.action === action && each.outcome === outcome).length;
  expect(counted('launch', 'ok')).toBe(made('RunInstances', 'ok'));
  expect(counted('launch', 'throttled')).toBe(0);
  expect(counted('terminate', 'throttled')).toBe(1);
  expect(counted('terminate', 'transient')).toBe(1);
  expect(counted('terminate', 'ok')).toBe(1);
  // A look at what was left behind is one of the node's calls and three of the cloud's.
  expect(counted('describe', 'ok')).toBe(made('DescribeInstances', 'ok') + made('DescribeVolumes', 'ok'));
  expect(seen.get('infralet_cloud_throttles_total{class="terminate"}')).toBe(1);
  expect(seen.get('infralet_cloud_throttles_total{class="launch"}')).toBe(0);
  expect(seen.get('infralet_cloud_waiting{class="launch"}')).toBe(0);

  // More launches than the limits allow at once: they wait, and it shows.
  const many = Promise.all(
    Array.from({ length: 40 }, async (_, n) => {
      const each = { ...request(), shape: { ...SHAPE, diskBytes: (10 + n) * 2 ** 30 } };
      return (await provider.launch([each], signal))[0]?.ok;
    }),
  );
  let most = 0;
  const watch = async (): Promise<void> => {
    for (let looks = 0; looks < 20; looks += 1) {
      most = Math.max(most, (await scrape(metrics.url)).get('infralet_cloud_waiting{class="launch"}') ?? 0);
      await clock.sleep(100, signal);
    }
  };
  await clock.run(clock.hold(async () => undefined).then(watch));
  expect(most).toBeGreaterThan(10);
  expect(await clock.run(many)).toEqual(Array.from({ length: 40 }, () => true));
  const after = await scrape(metrics.url);
  expect(after.get('infralet_cloud_waiting{class="launch"}')).toBe(0);
  expect(after.get('infralet_cloud_throttles_total{class="launch"}')).toBe(0);
});
