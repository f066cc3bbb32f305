/** A machine may say anything of itself: what is shown of it stays within what the machine can be. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Usage } from '../../../src/gen/infralet/agent/v1/Usage.ts';
import { bounded, groupUsage, interfaceUsages, layerUsage, rateOf } from '../../../src/stats/sample.ts';
import { received, someUsage } from '../../support/samples.ts';

const MACHINE = { cpuMillis: 1500, memoryBytes: 448 * 2 ** 20, diskBytes: 10 * 2 ** 30 };
const HUGE = '18446744073709551615';

function usageOf(usage: Usage) {
  const { pod } = received({ pod: usage });
  if (!pod) throw new Error('the usage got lost');
  return pod;
}

test('an honest sample comes through as it is', () => {
  const usage = groupUsage(usageOf(someUsage(10, { memoryLimit: 64 * 2 ** 20, pidsLimit: 50 })), MACHINE, 0);
  expect(usage).toMatchObject({
    cpuUs: 5_000_000,
    memory: 30 * 2 ** 20,
    memoryLimit: 64 * 2 ** 20,
    inactiveFile: 8 * 2 ** 20,
    pids: 3,
    pidsLimit: 50,
    swapLimit: 0,
    cpuPressure: { some: { totalUs: 500_000, avg10: 1.5, avg60: 0.75 } },
  });
  expect(groupUsage(usageOf({}), MACHINE, 0)).toMatchObject({
    memoryLimit: undefined,
    pidsLimit: undefined,
    cpuPressure: undefined,
  });
});

test('the largest numbers are cut to what the machine has', () => {
  const names = Object.keys(someUsage(1)).filter((name) => !name.endsWith('Pressure'));
  const stall = { totalUs: HUGE, avg10: Number.POSITIVE_INFINITY, avg60: Number.NaN, avg300: -1e300 };
  const usage = groupUsage(
    usageOf({
      ...Object.fromEntries([...names, 'swap', 'swapLimit', 'memoryLimit', 'pidsLimit'].map((name) => [name, HUGE])),
      cpuPressure: { some: stall },
    }),
    MACHINE,
    4096,
  );
  expect(usage).toMatchObject({
    cpuUs: Number.MAX_SAFE_INTEGER,
    memory: MACHINE.memoryBytes,
    anon: MACHINE.memoryBytes,
    swap: 4096,
    swapLimit: 4096,
    pids: 4_194_304,
    cpuPressure: { some: { avg10: 100, avg60: 0, avg300: 0 }, full: { totalUs: 0, avg10: 0 } },
  });
  const numbers = Object.values(usage).filter((value) => typeof value === 'number');
  expect(numbers.every((value) => Number.isSafeInteger(value) && value >= 0)).toBe(true);
  const layer = layerUsage({ bytes: HUGE, inodes: HUGE, ageMs: HUGE }, MACHINE, 1_700_000_000_000);
  expect(layer).toEqual({ bytes: MACHINE.diskBytes, inodes: MACHINE.diskBytes / 128, at: 0 });
});

test('numbers are natural, whatever the text', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.double().map(String), fc.bigInt().map(String)), fc.nat(), (text, limit) => {
      const value = bounded(text, limit);
      expect(Number.isSafeInteger(value) && value >= 0 && value <= limit).toBe(true);
    }),
  );
});

test('interfaces: few, with names that are names', () => {
  const { interfaces } = received({
    interfaces: [
      { name: 'eth0', rxBytes: HUGE },
      ...['', 'a b', 'x'.repeat(16), '../../etc', 'n\nl', '\u001b[31m'].map((name) => ({ name })),
      ...Array.from({ length: 1000 }, (_, n) => ({ name: `i${n}` })),
    ],
  });
  const shown = interfaceUsages(interfaces);
  expect(shown[0]).toMatchObject({ name: 'eth0', rxBytes: Number.MAX_SAFE_INTEGER });
  expect(shown.length).toBe(26);
  expect(shown.slice(1).every(({ name }) => /^i\d+$/.test(name))).toBe(true);
});

test('a rate is between two samples, by the machine’s own clock, and not beyond its processors', () => {
  const first = rateOf(undefined, { cpuUs: 1_000_000, monotonicUs: 50_000_000 }, MACHINE);
  expect(first.nanoCores).toBeUndefined();
  const second = rateOf(first, { cpuUs: 3_500_000, monotonicUs: 60_000_000 }, MACHINE);
  expect(second.nanoCores).toBe(250_000_000);
  // Too soon for another one: the last goes on, and so does its beginning.
  const soon = rateOf(second, { cpuUs: 3_600_000, monotonicUs: 60_100_000 }, MACHINE);
  expect(soon).toBe(second);
  expect(rateOf(soon, { cpuUs: 4_500_000, monotonicUs: 61_000_000 }, MACHINE).nanoCores).toBe(1_000_000_000);
  expect(rateOf(second, { cpuUs: 1e15, monotonicUs: 62_000_000 }, MACHINE).nanoCores).toBe(2_000_000_000);
  // Backwards: begins anew.
  expect(rateOf(second, { cpuUs: 5, monotonicUs: 70_000_000 }, MACHINE).nanoCores).toBeUndefined();
  expect(rateOf(second, { cpuUs: 9_000_000, monotonicUs: 7 }, MACHINE).nanoCores).toBeUndefined();
});
