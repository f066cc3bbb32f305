import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseBytes, parseDuration } from '../../../src/config/units.ts';

const DURATIONS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;
const SIZES = { '': 1, k: 1e3, Ki: 1024, M: 1e6, Mi: 1024 ** 2, G: 1e9, Gi: 1024 ** 3 } as const;

describe('parseDuration', () => {
  it('gives milliseconds for any number and unit', () => {
    fc.assert(
      fc.property(fc.nat(100_000), fc.constantFrom(...Object.entries(DURATIONS)), (value, [unit, factor]) => {
        expect(parseDuration(`${value}${unit}`)).toBe(value * factor);
      }),
    );
    expect(parseDuration('1.5s')).toBe(1500);
  });

  it.each(['', '5', 's', '-5s', '5 s', '5d', '5S', '1e3s', '٣s'])('refuses %j', (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });
});

describe('parseBytes', () => {
  it('gives bytes for any number and unit', () => {
    fc.assert(
      fc.property(fc.nat(100_000), fc.constantFrom(...Object.entries(SIZES)), (value, [unit, factor]) => {
        expect(parseBytes(`${value}${unit}`)).toBe(value * factor);
      }),
    );
    expect(parseBytes('0.5Ki')).toBe(512);
  });

  it.each(['', 'Mi', '-1', '1 Mi', '1MB', '1mi', '0x10'])('refuses %j', (text) => {
    expect(parseBytes(text)).toBeUndefined();
  });
});
