import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import type { CloudMachine } from '../../../src/cloud/driver.ts';
import { MachineSnapshot } from '../../../src/cloud/snapshot.ts';
import { VirtualClock } from '../../support/cloud/virtual-clock.ts';

const never = new AbortController().signal;
const EVERY = 1000;
const LAG = 10_000;

const machine = (id: string, state: CloudMachine['state'] = 'running'): CloudMachine => ({
  ...{ id, tags: {}, state, reason: '', launchedAt: 0, address: undefined },
  ...{ type: 't', zone: 'z', market: 'on-demand' },
});

let clock: VirtualClock;
let listed: CloudMachine[];
let reads: number;
let snapshot: MachineSnapshot;
beforeEach(() => {
  clock = new VirtualClock();
  listed = [];
  reads = 0;
  const read = async (): Promise<readonly CloudMachine[]> => {
    reads += 1;
    // What the list says is what it said when the call began.
    const answer = [...listed];
    await clock.sleep(50, never);
    return answer;
  };
  snapshot = new MachineSnapshot({ read, everyMs: EVERY, lagMs: LAG, clock, stop: never });
});

const get = async (): Promise<ReadonlyMap<string, CloudMachine>> => await clock.run(snapshot.get(never));
const pass = async (ms: number): Promise<void> => await clock.run(clock.sleep(ms, never));

describe('MachineSnapshot', () => {
  test('however many look, the list is read once per interval', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 40 }), async (gaps) => {
        const before = reads;
        const begun = clock.now();
        const looks: Promise<unknown>[] = [];
        const work = async (): Promise<void> => {
          for (const gap of gaps) {
            if (gap > 0) await clock.sleep(gap, never);
            looks.push(snapshot.get(never), snapshot.get(never));
          }
          await Promise.all(looks);
        };
        await clock.run(work());
        expect(reads - before).toBeLessThanOrEqual(1 + Math.ceil((clock.now() - begun) / EVERY));
      }),
      { numRuns: 30 },
    );
  });

  test('what was just made is there, until the list must have had it', async () => {
    snapshot.made([machine('m-1')]);
    expect((await get()).has('m-1')).toBe(true);
    await pass(LAG - 100);
    expect((await get()).has('m-1')).toBe(true);
    await pass(EVERY + 200);
    expect((await get()).has('m-1')).toBe(false);
  });

  test('what is made while a list is being read survives that read', async () => {
    const reading = snapshot.get(never);
    snapshot.made([machine('m-1')]);
    expect((await clock.run(reading)).has('m-1')).toBe(true);
  });

  test('what was ended is not raised by a list that lags', async () => {
    listed = [machine('m-1')];
    await get();
    snapshot.ended(['m-1'], 'by us');
    for (let round = 0; round < 5; round += 1) {
      await pass(EVERY);
      expect((await get()).get('m-1')).toMatchObject({ state: 'terminated', reason: 'by us' });
    }
    listed = [];
    await pass(EVERY);
    expect((await get()).has('m-1')).toBe(false);
  });

  test('what is ended while a list is being read stays ended', async () => {
    listed = [machine('m-1')];
    await get();
    await pass(EVERY);
    const reading = snapshot.get(never);
    snapshot.ended(['m-1'], 'by us');
    expect((await clock.run(reading)).get('m-1')?.state).toBe('terminated');
  });

  test('a read that failed is tried again by the next who looks', async () => {
    let fail = true;
    const broken = new MachineSnapshot({
      read: async () => (fail ? await Promise.reject(new Error('no list')) : [machine('m-1')]),
      ...{ everyMs: EVERY, lagMs: LAG, clock, stop: never },
    });
    await expect(clock.run(broken.get(never))).rejects.toThrow('no list');
    fail = false;
    expect((await clock.run(broken.get(never))).has('m-1')).toBe(true);
  });
});
