import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type PoolSize, poolTarget } from '../../../src/sandbox/pool-size.ts';

const FREE = { memory: Number.POSITIVE_INFINITY, cost: Number.POSITIVE_INFINITY };
const demand = (arrivals: number) => ({ arrivals, windowMs: 60_000, refillMs: 3000 });

const anyDemand = fc.record({
  arrivals: fc.nat(10_000),
  windowMs: fc.integer({ min: 1000, max: 3_600_000 }),
  refillMs: fc.integer({ min: 1, max: 300_000 }),
});
const anyCeilings = fc.record({
  memory: fc.oneof(fc.constant(Number.POSITIVE_INFINITY), fc.double({ min: 0, max: 50, noNaN: true })),
  cost: fc.oneof(fc.constant(Number.POSITIVE_INFINITY), fc.double({ min: 0, max: 50, noNaN: true })),
});
const anyAdaptive = fc
  .tuple(fc.nat(20), fc.nat(100))
  .map(([min, more]): Exclude<PoolSize, number> => ({ min, max: min + more }));
const anySize = fc.oneof(fc.nat(100), anyAdaptive);

describe('the size of a pool', () => {
  test('is what was asked for, or what arrives while a machine is made', () => {
    expect(poolTarget(3, demand(1000), FREE)).toEqual({ size: 3, limitedBy: undefined });
    const adaptive = { min: 1, max: 8 };
    expect(poolTarget(adaptive, demand(0), FREE).size).toBe(1);
    expect(poolTarget(adaptive, demand(1), FREE).size).toBe(1);
    // One a second, and each takes three seconds.
    expect(poolTarget(adaptive, demand(60), FREE).size).toBe(3);
    expect(poolTarget(adaptive, demand(61), FREE).size).toBe(4);
    expect(poolTarget(adaptive, demand(10_000), FREE).size).toBe(8);
    expect(poolTarget({ min: 0, max: 8 }, demand(0), FREE).size).toBe(0);
    expect(poolTarget(4, demand(0), { ...FREE, memory: 2.9 })).toEqual({ size: 2, limitedBy: 'memory' });
    expect(poolTarget(4, demand(0), { memory: 3, cost: 0.5 })).toEqual({ size: 0, limitedBy: 'cost' });
  });

  test('never passes a ceiling, and says so exactly when one holds it down', () => {
    fc.assert(
      fc.property(anySize, anyDemand, anyCeilings, (size, asked, ceilings) => {
        const target = poolTarget(size, asked, ceilings);
        const free = poolTarget(size, asked, FREE);
        expect(Number.isInteger(target.size)).toBe(true);
        expect(target.size).toBeGreaterThanOrEqual(0);
        expect(target.size).toBeLessThanOrEqual(ceilings.memory);
        expect(target.size).toBeLessThanOrEqual(ceilings.cost);
        expect(target.size).toBeLessThanOrEqual(free.size);
        expect(target.limitedBy === undefined).toBe(target.size === free.size);
      }),
    );
  });

  test('stays between min and max, and grows with demand', () => {
    fc.assert(
      fc.property(anyAdaptive, anyDemand, fc.nat(1000), (size, asked, more) => {
        const target = poolTarget(size, asked, FREE).size;
        expect(target).toBeGreaterThanOrEqual(size.min);
        expect(target).toBeLessThanOrEqual(size.max);
        expect(poolTarget(size, { ...asked, arrivals: asked.arrivals + more }, FREE).size).toBeGreaterThanOrEqual(
          target,
        );
        expect(poolTarget(size, { ...asked, refillMs: asked.refillMs + more }, FREE).size).toBeGreaterThanOrEqual(
          target,
        );
        expect(poolTarget(size, { ...asked, windowMs: asked.windowMs + more }, FREE).size).toBeLessThanOrEqual(target);
      }),
    );
  });
});
