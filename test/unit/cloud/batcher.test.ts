import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Batcher } from '../../../src/cloud/batcher.ts';
import { VirtualClock } from '../../support/cloud/virtual-clock.ts';

const never = new AbortController().signal;
const WINDOW = { idleMs: 35, maxMs: 200, maxItems: 7 };

function recorder() {
  const clock = new VirtualClock();
  const batches: { readonly key: string; readonly items: readonly number[]; readonly at: number }[] = [];
  const batcher = new Batcher<number, string>(WINDOW, clock, async (key, items) => {
    batches.push({ key, items, at: clock.now() });
    return items.map((item) => `${key}${item}`);
  });
  return { clock, batches, batcher };
}

describe('Batcher', () => {
  test('every item is carried out once, with its own result, in no larger and no later batch than allowed', async () => {
    const coming = fc.array(fc.record({ gap: fc.integer({ min: 0, max: 80 }), key: fc.constantFrom('a', 'b') }), {
      minLength: 1,
      maxLength: 60,
    });
    await fc.assert(
      fc.asyncProperty(coming, async (arrivals) => {
        const { clock, batches, batcher } = recorder();
        const added: number[] = [];
        const results: Promise<string>[] = [];
        const work = async (): Promise<readonly string[]> => {
          for (const [index, { gap, key }] of arrivals.entries()) {
            if (gap > 0) await clock.sleep(gap, never);
            added.push(clock.now());
            results.push(batcher.add(key, index, never));
          }
          return await Promise.all(results);
        };
        expect(await clock.run(work())).toEqual(arrivals.map(({ key }, index) => `${key}${index}`));
        expect(batches.flatMap(({ items }) => items).sort((x, y) => x - y)).toEqual(arrivals.map((_, index) => index));
        for (const { key, items, at } of batches) {
          expect(items.length).toBeLessThanOrEqual(WINDOW.maxItems);
          const times = items.map((item) => added[item] ?? 0);
          expect(at - (times[0] ?? 0)).toBeLessThanOrEqual(WINDOW.maxMs);
          expect(at - (times.at(-1) ?? 0)).toBeLessThanOrEqual(WINDOW.idleMs);
          expect(new Set(items.map((item) => arrivals[item]?.key))).toEqual(new Set([key]));
        }
      }),
      { numRuns: 40 },
    );
  });

  test('a caller that gives up takes nothing away from the others', async () => {
    const { clock, batches, batcher } = recorder();
    const impatient = new AbortController();
    const one = batcher.add('a', 1, impatient.signal);
    const two = batcher.add('a', 2, never);
    impatient.abort(new Error('enough'));
    await expect(clock.run(one)).rejects.toThrow('enough');
    expect(await clock.run(two)).toBe('a2');
    expect(batches.map(({ items }) => items)).toEqual([[1, 2]]);
  });

  test('an error is everybody’s; an item without a result is an error of its own', async () => {
    const clock = new VirtualClock();
    const broken = new Batcher<number, string>(WINDOW, clock, async () => await Promise.reject(new Error('broken')));
    const both = Promise.allSettled([broken.add('a', 1, never), broken.add('a', 2, never)]);
    expect((await clock.run(both)).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    const short = new Batcher<number, string>(WINDOW, clock, async () => ['only']);
    const [first, second] = await clock.run(Promise.allSettled([short.add('a', 1, never), short.add('a', 2, never)]));
    expect(first).toMatchObject({ status: 'fulfilled', value: 'only' });
    expect(second).toMatchObject({
      status: 'rejected',
      reason: { message: expect.stringContaining('without a result') },
    });
  });
});
