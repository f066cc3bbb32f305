import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatTraceparent, isSampled, parseTraceparent, traceIdOf } from '../../../src/telemetry/trace.ts';

const hex = (length: number) =>
  fc
    .array(fc.constantFrom(...'0123456789abcdef'.split('')), { minLength: length, maxLength: length })
    .map((digits) => digits.join(''))
    .filter((text) => !/^0*$/.test(text));

test('what is written is read again', () => {
  fc.assert(
    fc.property(hex(32), hex(16), fc.constantFrom(0, 1), (traceId, spanId, flags) => {
      const text = formatTraceparent({ traceId, spanId, flags });
      expect(parseTraceparent(text)).toEqual({ traceId, spanId, flags });
      expect([traceIdOf(text), isSampled(text)]).toEqual([traceId, flags === 1]);
    }),
  );
});

test('what is no trace context is none, whatever a caller sends', () => {
  const trace = '0af7651916cd43dd8448eb211c80319c';
  const span = 'b7ad6b7169203331';
  for (const text of [
    undefined,
    '',
    'x',
    `00-${trace}-${span}`,
    `00-${'0'.repeat(32)}-${span}-01`,
    `00-${trace}-${'0'.repeat(16)}-01`,
    `ff-${trace}-${span}-01`,
    `00-${trace.toUpperCase()}-${span}-01`,
    `00-${trace}-${span}-01-more`,
    `00-${trace}-${span}-01\n`,
  ]) {
    expect(parseTraceparent(text)).toBeUndefined();
  }
  // A later version may say more; what is known of it counts.
  expect(parseTraceparent(`01-${trace}-${span}-01-more`)?.traceId).toBe(trace);
  fc.assert(fc.property(fc.string(), (text) => void parseTraceparent(text)));
});
