/** The disk for clouds: nothing overlaps, everything lies where firmware, clouds and the machine's init look for it. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { digestUuid } from '../../src/guest-image/digest.ts';
import { layOut, SECTOR, sfdiskScript } from '../../src/guest-image/disk-layout.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const bytes = fc.integer({ min: 1, max: 8 * GIB });

test('partitions follow one another between the two tables of a disk of whole GiB', () => {
  fc.assert(
    fc.property(bytes, bytes, (root, scratch) => {
      const layout = layOut({ root, scratch }, digestUuid);
      expect(layout.size % GIB).toBe(0);
      let end = MIB;
      for (const { start, size } of Object.values(layout.partitions)) {
        expect(start).toBe(end);
        expect(start % MIB).toBe(0);
        expect(size % MIB).toBe(0);
        end = start + size;
      }
      expect(end).toBe(layout.size - MIB);
      expect(layout.partitions.root.size).toBeGreaterThanOrEqual(root);
      expect(layout.partitions.scratch.size).toBeGreaterThanOrEqual(scratch);
    }),
  );
});

test('the scratch area is the last partition and bears the name that init looks for', () => {
  const layout = layOut({ root: 220 * MIB, scratch: 256 * MIB }, digestUuid);
  expect(Object.keys(layout.partitions).at(-1)).toBe('scratch');
  const script = sfdiskScript(layout);
  expect(script).toContain(`start=${layout.partitions.scratch.start / SECTOR}, `);
  expect(script).toContain('name=infralet-root');
  expect(script).toContain('name=infralet-scratch');
  expect(new Set(script.match(/uuid=\S+/g)).size).toBe(4);
});
