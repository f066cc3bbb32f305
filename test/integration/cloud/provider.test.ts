/** The layer between the contract and a cloud's driver, over a cloud in memory and in virtual time; its store is a real file. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { InfraletError } from '../../../src/base/errors.ts';
import { type Instance, type LaunchRequest, type LaunchResult, TAGS } from '../../../src/cloud/contract.ts';
import { fleetSettings } from '../../../src/cloud/fleet-config.ts';
import { LaunchStore } from '../../../src/cloud/launch-store.ts';
import type { Market, Offer } from '../../../src/cloud/offers.ts';
import { CloudProvider } from '../../../src/cloud/provider.ts';
import { machineToken } from '../../../src/rpc/agent-protocol.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { MemoryCloud } from '../../support/cloud/memory-driver.ts';
import { VirtualClock } from '../../support/cloud/virtual-clock.ts';

const GIB = 2 ** 30;
const OWNER = { [TAGS.cluster]: 'c', [TAGS.node]: 'n' };
const config = z
  .object(
    fleetSettings({
      launch: [5, 2],
      launchResources: [1000, 2],
      describe: [50, 10],
      terminate: [100, 5],
      other: [50, 10],
    }),
  )
  .parse({});

const offer = (name: string, zone: string, pricePerHour: number, market: Market = 'on-demand', cpus = 2): Offer => ({
  type: { name, architecture: 'amd64', cpuMillis: cpus * 1000, memoryBytes: 2 * cpus * GIB, gpus: undefined },
  zone,
  market,
  pricePerHour,
  estimated: false,
});
const OFFERS = [
  offer('small', 'a', 0.1),
  offer('small', 'b', 0.11),
  offer('small', 'a', 0.03, 'spot'),
  offer('large', 'a', 0.2, 'on-demand', 4),
];

describe('a provider over a cloud', () => {
  let signal: AbortSignal;
  let directory: string;
  let clock: VirtualClock;
  let cloud: MemoryCloud;
  let provider: CloudProvider;
  let count = 0;

  const open = (maxPerCall = 1000): CloudProvider =>
    new CloudProvider({
      driver: cloud.driver(maxPerCall),
      config,
      store: new LaunchStore(join(directory, 'launches.db')),
      owner: OWNER,
      clock,
      log: nullLogger,
    });
  const request = (extra: Partial<LaunchRequest> = {}): LaunchRequest => {
    count += 1;
    return {
      token: `launch-${count}`,
      tags: { ...OWNER, [TAGS.sandbox]: `s${count}` },
      shape: { cpuMillis: 1000, memoryBytes: GIB, diskBytes: 10 * GIB },
      userData: JSON.stringify({ version: 1, cluster: 'c', sandboxId: `s${count}`, token: `t${count}` }),
      ...extra,
    };
  };
  const launched = (result: LaunchResult | undefined): Instance => {
    if (!result?.ok) throw InfraletError.from(result?.error ?? 'no result');
    return result.instance;
  };
  const launch = async (asked: LaunchRequest): Promise<Instance> =>
    launched((await clock.run(provider.launch([asked], signal)))[0]);

  beforeEach(() => {
    signal = AbortSignal.timeout(60_000);
    directory = mkdtempSync(join(tmpdir(), 'infralet-test-'));
    clock = new VirtualClock();
    cloud = new MemoryCloud(clock, OFFERS);
    provider = open();
  });
  afterEach(async () => {
    await clock.run(provider[Symbol.asyncDispose]());
    rmSync(directory, { recursive: true });
  });

  test('buys the cheapest that fits, with the tags and the user data of the pod', async () => {
    const asked = request();
    const instance = await launch(asked);
    expect(instance.purchase).toEqual({ type: 'small', zone: 'a', market: 'on-demand', pricePerHour: 0.1 });
    expect(instance.enrolToken).toBeUndefined();
    expect(cloud.alive[0]?.tags).toMatchObject(asked.tags);
  });

  test('200 pods at once: few calls, no more often than the limits allow, every machine its own token', async () => {
    const all = Array.from({ length: 200 }, () => request());
    const begun = clock.now();
    const results = await clock.run(Promise.all(all.map(async (asked) => (await provider.launch([asked], signal))[0])));
    const instances = results.map(launched);
    expect(new Set(instances.map(({ id }) => id)).size).toBe(200);
    expect(new Set(instances.map(({ enrolToken }) => enrolToken)).size).toBe(200);
    expect(cloud.count('launch')).toBeLessThanOrEqual(12);
    expect(clock.now() - begun).toBeLessThan(5000);
    expect(instances.map(({ tags }) => tags[TAGS.sandbox])).toEqual(all.map(({ tags }) => tags[TAGS.sandbox]));
    // All of them look for their machine at once, and again and again.
    const waits = Array.from({ length: 50 }, async () => {
      for (const { id } of instances) await provider.describe({ by: 'ids', ids: [id] }, signal);
      await clock.sleep(100, signal);
    });
    await clock.run(Promise.all(waits));
    expect(cloud.count('list')).toBeLessThanOrEqual(2);
  });

  test('a machine of a shared call proves itself by a token that follows from its id', async () => {
    const [one, two] = await clock.run(
      Promise.all([request(), request()].map(async (asked) => launched((await provider.launch([asked], signal))[0]))),
    );
    const store = new LaunchStore(join(directory, 'launches.db'));
    const row = store.owner(one?.id ?? '');
    const call = store.call(row?.callToken ?? '');
    store[Symbol.dispose]();
    expect(JSON.parse(call?.call.userData ?? '{}')).toEqual({ version: 1, cluster: 'c', seed: call?.seed });
    expect(one?.enrolToken).toBe(machineToken(call?.seed ?? '', one?.id ?? ''));
    expect(one?.enrolToken).not.toBe(two?.enrolToken);
  });

  test('capacity missing: the next offer is asked at once, in the same launch, and the empty one is left alone', async () => {
    cloud.capacity.set('small/a/on-demand', 0);
    const first = await launch(request());
    expect(first.purchase).toMatchObject({ zone: 'b', type: 'small' });
    const [refused, next] = cloud.calls.filter(({ call }) => call === 'launch');
    expect((next?.at ?? 0) - (refused?.at ?? 0)).toBeLessThanOrEqual(config.batchNextOffer);
    await launch(request());
    expect(cloud.count('launch')).toBe(3);
    await clock.run(clock.sleep(config.unavailableTtl + 1, signal));
    cloud.capacity.delete('small/a/on-demand');
    expect((await launch(request())).purchase).toMatchObject({ zone: 'a' });
  });

  test('a call that is only partly filled: the rest goes to the next offer', async () => {
    cloud.capacity.set('small/a/on-demand', 3);
    const results = await clock.run(
      Promise.all(Array.from({ length: 5 }, async () => launched((await provider.launch([request()], signal))[0]))),
    );
    expect(results.map(({ purchase }) => purchase?.zone ?? '').sort()).toEqual(['a', 'a', 'a', 'b', 'b']);
    expect(cloud.alive).toHaveLength(5);
  });

  test('many pods that have to take the next offer take it together', async () => {
    cloud.capacity.set('small/a/on-demand', 0);
    const all = Array.from({ length: 50 }, async () => launched((await provider.launch([request()], signal))[0]));
    await clock.run(Promise.all(all));
    expect(cloud.count('launch')).toBe(2);
  });

  test('spot-preferred takes spot first and on-demand when the quota for spot is used up', async () => {
    const placement = { market: 'spot-preferred' } as const;
    expect((await launch(request({ placement }))).purchase).toMatchObject({ market: 'spot' });
    cloud.script.push({ call: 'launch', when: 'before', fault: { kind: 'quota', message: 'too many spot machines' } });
    expect((await launch(request({ placement }))).purchase).toMatchObject({ market: 'on-demand' });
  });

  test('a call that answered nobody is repeated with its own token, and makes no second machine', async () => {
    cloud.script.push({ call: 'launch', when: 'after', fault: { kind: 'transient', message: 'time-out' } });
    const asked = request();
    await launch(asked);
    expect(cloud.count('launch')).toBe(2);
    expect(cloud.alive).toHaveLength(1);
    expect((await launch(asked)).id).toBe(cloud.alive[0]?.id);
    expect(cloud.count('launch')).toBe(2);
  });

  test.each(['before', 'after'] as const)(
    'killed %s the effect of a shared call: the same launches find the same machines',
    async (when) => {
      // Every try ends without an answer: as good as a daemon that dies.
      for (let i = 0; i < config.launchTries; i += 1) {
        cloud.script.push({ call: 'launch', when, fault: { kind: 'transient', message: 'no answer' } });
      }
      const all = [request(), request(), request()];
      const failed = await clock.run(
        Promise.all(all.map(async (asked) => (await provider.launch([asked], signal))[0]?.ok)),
      );
      expect(failed).toEqual([false, false, false]);
      await clock.run(provider[Symbol.asyncDispose]());
      provider = open();
      const found = await clock.run(
        Promise.all(all.map(async (asked) => launched((await provider.launch([asked], signal))[0]))),
      );
      expect(new Set(found.map(({ id }) => id)).size).toBe(3);
      expect(cloud.alive).toHaveLength(3);
      for (const [index, asked] of all.entries()) {
        const tags = { [TAGS.sandbox]: asked.tags[TAGS.sandbox] ?? '' };
        const seen = await clock.run(provider.describe({ by: 'tags', tags }, signal));
        expect(seen.map(({ id }) => id)).toEqual([found[index]?.id]);
      }
    },
  );

  test('a launch that nobody repeats is found by its pod and can be ended', async () => {
    for (let i = 0; i < config.launchTries; i += 1) {
      cloud.script.push({ call: 'launch', when: 'after', fault: { kind: 'transient', message: 'no answer' } });
    }
    const asked = request();
    await clock.run(provider.launch([asked], signal));
    const tags = { [TAGS.sandbox]: asked.tags[TAGS.sandbox] ?? '' };
    const [instance] = await clock.run(provider.describe({ by: 'tags', tags }, signal));
    if (!instance) throw new Error('not found');
    await clock.run(provider.terminate([instance.id], signal));
    expect(cloud.alive).toEqual([]);
    expect(await clock.run(provider.describe({ by: 'tags', tags }, signal))).toEqual([]);
  });

  test('a list that lags does not hide a machine that was just made, nor raise one that was ended', async () => {
    cloud.lagMs = 60_000;
    const { id } = await launch(request());
    await clock.run(clock.sleep(5000, signal));
    expect(await clock.run(provider.describe({ by: 'ids', ids: [id] }, signal))).toMatchObject([{ state: 'running' }]);
    await clock.run(clock.sleep(70_000, signal));
    await clock.run(provider.terminate([id], signal));
    expect(await clock.run(provider.describe({ by: 'ids', ids: [id] }, signal))).toMatchObject([
      { state: 'terminated' },
    ]);
  });

  test('a list that lags does not hide what was made just before a restart', async () => {
    cloud.lagMs = 60_000;
    const asked = request();
    const { id } = await launch(asked);
    await clock.run(provider[Symbol.asyncDispose]());
    provider = open();
    expect(await clock.run(provider.describe({ by: 'ids', ids: [id] }, signal))).toMatchObject([{ state: 'pending' }]);
    expect((await launch(asked)).id).toBe(id);
    await clock.run(clock.sleep(61_000, signal));
    expect(await clock.run(provider.describe({ by: 'ids', ids: [id] }, signal))).toMatchObject([{ state: 'running' }]);
    // One that is really gone is not believed in for ever.
    cloud.machines.delete(id);
    await clock.run(provider[Symbol.asyncDispose]());
    provider = open();
    await clock.run(clock.sleep(config.listLag + 1, signal));
    expect(await clock.run(provider.describe({ by: 'ids', ids: [id] }, signal))).toEqual([]);
  });

  test('ends many machines in few calls, and one that is gone keeps none of the others', async () => {
    const ids = (
      await clock.run(
        Promise.all(Array.from({ length: 30 }, async () => launched((await provider.launch([request()], signal))[0]))),
      )
    ).map(({ id }) => id);
    cloud.machines.delete(ids[7] ?? '');
    await clock.run(Promise.all(ids.map(async (id) => await provider.terminate([id], signal))));
    expect(cloud.alive).toEqual([]);
    expect(cloud.calls.filter(({ call }) => call === 'terminate')[0]?.count).toBe(30);
  });

  test('throttled: slower for a while, the pod still gets its machine', async () => {
    cloud.script.push({
      call: 'launch',
      when: 'before',
      fault: { kind: 'throttled', message: 'RequestLimitExceeded' },
    });
    await launch(request());
    expect(provider.limiters.launch.throttles).toBe(1);
    expect(cloud.alive).toHaveLength(1);
  });

  test('nothing fits: the reason says what most offers lack', async () => {
    const asked = request({ shape: { cpuMillis: 64_000, memoryBytes: GIB, diskBytes: GIB } });
    const [result] = await clock.run(provider.launch([asked], signal));
    if (!result || result.ok) throw new Error('it was launched');
    const { kind, message } = provider.classify(result.error);
    expect(kind).toBe('no-capacity');
    expect(message).toContain('of 64000 thousandths of a CPU');
    expect(cloud.calls).toEqual([]);
  });

  test('explains what it would buy and why nothing else, and calls nothing', async () => {
    cloud.capacity.set('small/a/on-demand', 0);
    await launch(request());
    const before = cloud.calls.length;
    const shape = { cpuMillis: 1000, memoryBytes: GIB, diskBytes: GIB };
    const { ranked, rejected } = await clock.run(provider.explain(shape, {}, signal));
    expect(ranked.map(({ type, zone, pricePerHour }) => [type, zone, pricePerHour])).toEqual([
      ['small', 'b', 0.11],
      ['large', 'a', 0.2],
    ]);
    expect(Object.fromEntries(rejected.map(({ offer: { market }, reason }) => [market, reason]))).toEqual({
      'on-demand': 'no small/a/on-demand is left',
      spot: 'it is spot, on-demand is wanted',
    });
    expect(cloud.calls).toHaveLength(before);
  });

  test('a machine of a shared call is nobody’s orphan while the call goes on, and has a price when it is one', async () => {
    for (let i = 0; i < 3; i += 1) {
      cloud.script.push({ call: 'launch', when: 'after', fault: { kind: 'transient', message: 'no answer' } });
    }
    const both = Promise.all(
      [request(), request()].map(async (asked) => launched((await provider.launch([asked], signal))[0])),
    );
    const looks: number[] = [];
    const look = async (): Promise<void> => {
      while (cloud.alive.length === 0 || cloud.count('launch') < 4) {
        const seen = await provider.describe({ by: 'tags', tags: OWNER }, signal);
        if (cloud.alive.length > 0) looks.push(seen.filter(({ tags }) => tags[TAGS.sandbox] === undefined).length);
        await clock.sleep(200, signal);
      }
    };
    await clock.run(Promise.all([both, look()]));
    expect(looks.length).toBeGreaterThan(2);
    expect(new Set(looks)).toEqual(new Set([0]));
    await clock.run(clock.sleep(2000, signal));
    expect(await clock.run(provider.describe({ by: 'tags', tags: OWNER }, signal))).toHaveLength(2);
    // The store is lost as well: machines that nobody can name are there to be swept.
    await clock.run(provider[Symbol.asyncDispose]());
    rmSync(join(directory, 'launches.db'));
    for (const suffix of ['-wal', '-shm']) rmSync(join(directory, `launches.db${suffix}`), { force: true });
    provider = open();
    await clock.run(provider.explain({ cpuMillis: 1, memoryBytes: 1, diskBytes: 1 }, {}, signal));
    const lost = await clock.run(provider.describe({ by: 'tags', tags: OWNER }, signal));
    expect(lost.map(({ tags, purchase }) => [tags[TAGS.sandbox], purchase?.pricePerHour])).toEqual([
      [undefined, 0.1],
      [undefined, 0.1],
    ]);
  });

  test('where a call makes one machine every pod has its own user data', async () => {
    await clock.run(provider[Symbol.asyncDispose]());
    provider = open(1);
    const all = [request(), request()];
    const made = await clock.run(
      Promise.all(all.map(async (asked) => launched((await provider.launch([asked], signal))[0]))),
    );
    expect(made.map(({ enrolToken }) => enrolToken)).toEqual([undefined, undefined]);
    expect(cloud.count('launch')).toBe(2);
  });
});
