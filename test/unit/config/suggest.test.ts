import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { editDistance, nearest } from '../../../src/config/suggest.ts';

const word = fc.string({ maxLength: 12 });

describe('editDistance', () => {
  it('is a distance: zero only for equal words, the same both ways', () => {
    fc.assert(
      fc.property(word, word, (a, b) => {
        const distance = editDistance(a, b);
        expect(distance === 0).toBe(a === b);
        expect(editDistance(b, a)).toBe(distance);
        expect(distance).toBeLessThanOrEqual(Math.max(a.length, b.length));
        expect(distance).toBeGreaterThanOrEqual(Math.abs(a.length - b.length));
      }),
    );
  });

  it('counts one for one slip', () => {
    expect(editDistance('socket', 'sockte')).toBe(1);
    expect(editDistance('socket', 'sockett')).toBe(1);
    expect(editDistance('socket', 'soket')).toBe(1);
    expect(editDistance('socket', 'sokket')).toBe(1);
  });
});

describe('nearest', () => {
  const known = ['stateDir', 'server', 'streaming', 'machine', 'minMemory'];

  it.each([
    ['state-dir', 'stateDir'],
    ['STATEDIR', 'stateDir'],
    ['machines', 'machine'],
    ['memory', 'minMemory'],
    ['sterver', 'server'],
  ])('takes %s for %s', (typed, meant) => {
    expect(nearest(typed, known)).toBe(meant);
  });

  it('does not guess at random', () => {
    expect(nearest('kubelet', known)).toBeUndefined();
    expect(nearest('x', [])).toBeUndefined();
  });
});
