import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { printable } from '../../../src/base/text.ts';
import { formatAge, formatBytes, formatTable } from '../../../src/cli/format.ts';

describe('formatAge', () => {
  it.each([
    [0, '0s'],
    [-5, '0s'],
    [119_000, '119s'],
    [120_000, '2m'],
    [7_200_000, '2h'],
    [172_800_000, '2d'],
  ])('%i ms → %s', (ms, text) => {
    expect(formatAge(ms)).toBe(text);
  });
});

describe('formatBytes', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1536, '1.5 KiB'],
    [268_435_456, '256 MiB'],
    [10 * 2 ** 30, '10.0 GiB'],
  ])('%i → %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});

describe('formatTable', () => {
  it('aligns columns and leaves no blanks at line ends', () => {
    expect(
      formatTable(
        ['A', 'LONG'],
        [
          ['x', ''],
          ['wide', 'y'],
        ],
      ),
    ).toBe('A     LONG\nx\nwide  y');
  });
});

describe('printable', () => {
  it('takes escape sequences and control characters out of what a guest wrote', () => {
    expect(printable('\u001b[2J\u001b]0;title\u0007boot\r\nnext\u0000\u009b31m\tend\u202e')).toBe('boot\nnext\tend');
  });

  it('lets nothing through that a terminal acts upon', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.oneof(fc.constantFrom('\u001b', '[', '\u0007', '\u009b', ']'), fc.string()) }),
        (text) => {
          expect(printable(text)).not.toMatch(/[^\P{Cc}\n\t]/u);
        },
      ),
    );
  });
});
