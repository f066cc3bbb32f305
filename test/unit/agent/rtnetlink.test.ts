/** Addresses as the kernel takes them. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { addressBytes, outcomes } from '../../../src/agent/rtnetlink.ts';

const sixteen = fc.uint8Array({ minLength: 16, maxLength: 16 });
const groups = (bytes: Uint8Array): string[] =>
  Array.from({ length: 8 }, (_, index) =>
    Buffer.from(bytes)
      .readUInt16BE(index * 2)
      .toString(16),
  );

test('an IPv6 address is the same bytes however it is written', () => {
  fc.assert(
    fc.property(sixteen, fc.nat(7), fc.nat(8), (bytes, from, length) => {
      const zeroed = Uint8Array.from(bytes);
      const to = Math.min(8, from + length);
      zeroed.fill(0, from * 2, to * 2);
      const all = groups(zeroed);
      const full = all.join(':');
      expect(addressBytes(full)).toEqual(Buffer.from(zeroed));
      // As everybody else writes it.
      expect(addressBytes(new URL(`http://[${full}]/`).hostname.slice(1, -1))).toEqual(Buffer.from(zeroed));
      if (to > from) {
        const short = `${all.slice(0, from).join(':')}::${all.slice(to).join(':')}`;
        expect(addressBytes(short)).toEqual(Buffer.from(zeroed));
      }
      const tail = `${all.slice(0, 6).join(':')}:${zeroed.subarray(12).join('.')}`;
      expect(addressBytes(tail)).toEqual(Buffer.from(zeroed));
    }),
  );
  expect(addressBytes('::ffff:1.2.3.4').toString('hex')).toBe('00000000000000000000ffff01020304');
});

test('an IPv4 address is its four numbers', () => {
  fc.assert(
    fc.property(fc.ipV4(), (text) => {
      expect(addressBytes(text).join('.')).toBe(text);
    }),
  );
});

test('answers that are none have no outcome', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      expect(outcomes(Buffer.from(bytes)).length).toBeLessThan(11);
    }),
  );
});
