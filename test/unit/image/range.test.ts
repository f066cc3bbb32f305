import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseRange } from '../../../src/image/range.ts';

test.each([
  [undefined, undefined],
  ['bytes=0-9', { start: 0, end: 9 }],
  ['bytes=5-', { start: 5, end: 99 }],
  ['bytes=-5', { start: 95, end: 99 }],
  ['bytes=-500', { start: 0, end: 99 }],
  ['bytes=90-500', { start: 90, end: 99 }],
  ['bytes=100-', 'unsatisfiable'],
  ['bytes=-0', 'unsatisfiable'],
  ['bytes=9-5', undefined],
  ['bytes=-', undefined],
  ['bytes=0-1,3-4', undefined],
  ['items=0-1', undefined],
  ['bytes=a-b', undefined],
] as const)('%s of 100 bytes', (header, range) => {
  expect(parseRange(header, 100)).toStrictEqual(range);
});

test('a range never leaves the file', () => {
  fc.assert(
    fc.property(fc.nat(1200), fc.nat(1200), fc.integer({ min: 0, max: 1000 }), (from, to, size) => {
      const range = parseRange(`bytes=${from}-${to}`, size);
      if (to < from) expect(range).toBeUndefined();
      else if (from >= size) expect(range).toBe('unsatisfiable');
      else expect(range).toEqual({ start: from, end: Math.min(to, size - 1) });
    }),
  );
});
