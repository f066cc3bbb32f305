import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CallLimiter } from '../../../src/cloud/limiter.ts';
import { VirtualClock } from '../../support/cloud/virtual-clock.ts';

const never = new AbortController().signal;
const bucket = fc.record({ burst: fc.integer({ min: 1, max: 10 }), perSecond: fc.integer({ min: 1, max: 20 }) });
/** When calls come, in milliseconds after each other, and how many resources each is about. */
const arrivals = fc.array(
  fc.record({ gap: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 700 })), count: fc.integer({ min: 1, max: 8 }) }),
  { minLength: 1, maxLength: 40 },
);

interface Granted {
  readonly at: number;
  readonly count: number;
}

async function play(
  limiter: CallLimiter,
  clock: VirtualClock,
  calls: readonly { readonly gap: number; readonly count: number }[],
): Promise<readonly Granted[]> {
  const granted: Granted[] = [];
  const all: Promise<void>[] = [];
  const coming = async (): Promise<void> => {
    for (const { gap, count } of calls) {
      if (gap > 0) await clock.sleep(gap, never);
      all.push(limiter.turn(never, count).then(() => void granted.push({ at: clock.now(), count })));
    }
    await Promise.all(all);
  };
  await clock.run(coming());
  return granted;
}

/** The most that the bucket lets through between two moments, for every pair of them. */
function withinLimit(granted: readonly Granted[], size: { readonly burst: number; readonly perSecond: number }): void {
  for (const [from, { at: begin }] of granted.entries()) {
    let sum = 0;
    for (const { at, count } of granted.slice(from)) {
      sum += Math.min(count, size.burst);
      expect(sum).toBeLessThanOrEqual(size.burst + ((at - begin) / 1000) * size.perSecond + 1e-3);
    }
  }
}

describe('CallLimiter', () => {
  test('never lets more calls through than burst and rate allow, in any window, and every call in the end', async () => {
    await fc.assert(
      fc.asyncProperty(bucket, arrivals, async (calls, coming) => {
        const clock = new VirtualClock();
        const granted = await play(new CallLimiter({ calls, clock }), clock, coming);
        expect(granted).toHaveLength(coming.length);
        withinLimit(
          granted.map(({ at }) => ({ at, count: 1 })),
          calls,
        );
      }),
      { numRuns: 40 },
    );
  });

  test('counts what calls are about in a bucket of its own', async () => {
    await fc.assert(
      fc.asyncProperty(bucket, arrivals, async (resources, coming) => {
        const clock = new VirtualClock();
        const calls = { burst: 1000, perSecond: 1000 };
        const granted = await play(new CallLimiter({ calls, resources, clock }), clock, coming);
        expect(granted).toHaveLength(coming.length);
        withinLimit(granted, resources);
      }),
      { numRuns: 40 },
    );
  });

  test('calls that nothing holds up go at once, in their order', async () => {
    const clock = new VirtualClock();
    const begun = clock.now();
    const granted = await play(new CallLimiter({ calls: { burst: 5, perSecond: 1 }, clock }), clock, [
      ...[1, 2, 3, 4, 5].map((count) => ({ gap: 0, count })),
      { gap: 0, count: 6 },
    ]);
    expect(granted.map(({ at }) => at - begun)).toEqual([0, 0, 0, 0, 0, 1000]);
    expect(granted.map(({ count }) => count)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('a throttle halves the rate, quiet raises it again', async () => {
    const clock = new VirtualClock();
    const limiter = new CallLimiter({ calls: { burst: 10, perSecond: 10 }, clock });
    limiter.throttled();
    const begun = clock.now();
    await play(
      limiter,
      clock,
      Array.from({ length: 5 }, () => ({ gap: 0, count: 1 })),
    );
    const slow = clock.now() - begun;
    expect(slow).toBeGreaterThan(900);
    expect(slow).toBeLessThanOrEqual(1000);
    await clock.run(clock.sleep(60_000, never));
    await play(
      limiter,
      clock,
      Array.from({ length: 10 }, () => ({ gap: 0, count: 1 })),
    );
    const since = clock.now();
    await play(
      limiter,
      clock,
      Array.from({ length: 10 }, () => ({ gap: 0, count: 1 })),
    );
    expect(clock.now() - since).toBeLessThanOrEqual(1000);
    expect(limiter.throttles).toBe(1);
  });

  test('however often it was throttled, calls go on at a sixteenth of the rate at least', async () => {
    const clock = new VirtualClock();
    const limiter = new CallLimiter({ calls: { burst: 1, perSecond: 16 }, clock });
    for (let i = 0; i < 20; i += 1) limiter.throttled();
    const begun = clock.now();
    await play(limiter, clock, [{ gap: 0, count: 1 }]);
    expect(clock.now() - begun).toBeLessThanOrEqual(1000);
  });

  test('who gives up waits no longer and takes nothing', async () => {
    const clock = new VirtualClock();
    const limiter = new CallLimiter({ calls: { burst: 1, perSecond: 1 }, clock });
    await play(limiter, clock, [{ gap: 0, count: 1 }]);
    const impatient = new AbortController();
    const given = limiter.turn(impatient.signal);
    impatient.abort(new Error('enough'));
    await expect(clock.run(given)).rejects.toThrow();
    const begun = clock.now();
    await play(limiter, clock, [{ gap: 0, count: 1 }]);
    expect(clock.now() - begun).toBeLessThanOrEqual(1000);
  });
});
