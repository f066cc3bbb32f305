/** A reader may be as slow as it likes: it hears the last of every container, or that it has missed something. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { EventQueue } from '../../../src/events/queue.ts';

interface Numbered {
  readonly id: string;
  readonly serial: number;
}

const signal = AbortSignal.timeout(60_000);

test('in order, and waiting for the next', async () => {
  const queue = new EventQueue<Numbered>(10);
  const first = queue.next(signal);
  queue.push({ id: 'a', serial: 1 });
  queue.push({ id: 'b', serial: 2 });
  expect([await first, await queue.next(signal)].map(({ serial }) => serial)).toEqual([1, 2]);
  const leaving = new AbortController();
  const waiting = queue.next(leaving.signal);
  leaving.abort(new Error('the reader leaves'));
  await expect(waiting).rejects.toThrow('the reader leaves');
  queue.push({ id: 'a', serial: 3 });
  expect((await queue.next(signal)).serial).toBe(3);
});

test('full: the newest of each container stays', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom('a', 'b', 'c', 'd', 'e'), { minLength: 1, maxLength: 100 }),
      fc.integer({ min: 6, max: 12 }),
      async (ids, limit) => {
        const queue = new EventQueue<Numbered>(limit);
        for (const [serial, id] of ids.entries()) queue.push({ id, serial });
        queue.push({ id: 'end', serial: ids.length });
        const read: Numbered[] = [];
        for (let event = await queue.next(signal); event.id !== 'end'; event = await queue.next(signal))
          read.push(event);
        expect(read.length).toBeLessThanOrEqual(limit);
        for (const id of new Set(ids)) {
          expect(read.findLast((event) => event.id === id)?.serial).toBe(ids.lastIndexOf(id));
        }
        expect(read.map(({ serial }) => serial)).toEqual(read.map(({ serial }) => serial).toSorted((x, y) => x - y));
      },
    ),
  );
});

test('more containers than it holds: the reader is told', async () => {
  const queue = new EventQueue<Numbered>(3);
  for (let serial = 0; serial < 4; serial += 1) queue.push({ id: `c${serial}`, serial });
  await expect(queue.next(signal)).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  queue.push({ id: 'late', serial: 9 });
  await expect(queue.next(signal)).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
});
