/** Huge pages: what the machine is asked for, and what it hears of. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { reserveHugePages } from '../../../src/agent/huge-pages.ts';
import { guestHugepageLimits, hugePagesOf, pageBytes } from '../../../src/container/huge-pages.ts';
import { containerCodec } from '../../../src/rpc/codecs.ts';
import { loadCri } from '../../../src/rpc/load.ts';

const codec = containerCodec(loadCri());
const MIB = 2 ** 20;
const config = (...limits: readonly (readonly [string, number])[]) => {
  const hugepageLimits = limits.map(([pageSize, limit]) => ({ pageSize, limit: String(limit) }));
  return codec.decode(codec.encode({ linux: { resources: { hugepageLimits } } } as never));
};

test('all containers of a pod together: pages rounded up, sizes without any left out', () => {
  const pod = [config(['2MB', 3 * MIB], ['1GB', 0]), config(['2MB', 2 * MIB]), config()];
  expect(hugePagesOf(pod)).toEqual([{ pageBytes: 2 * MIB, count: 3 }]);
  expect(hugePagesOf([config(['1GB', 0])])).toEqual([]);
});

test('a machine hears of sizes that it has', () => {
  const limits = config(['2MB', 0], ['1GB', 0]).linux?.resources?.hugepageLimits ?? [];
  expect(guestHugepageLimits(limits, []).map(({ pageSize }) => pageSize)).toEqual(['2MB']);
  expect(guestHugepageLimits(limits, [{ pageBytes: 2 ** 30, count: 1 }])).toEqual(limits);
});

test.each([
  ['2MB', 2 * MIB],
  ['1GB', 2 ** 30],
  ['64KB', 65_536],
  ['2Mi', undefined],
  ['0MB', undefined],
  ['../2MB', undefined],
])('the size %s', (text, bytes) => {
  expect(pageBytes(text)).toBe(bytes);
});

test('the agent reserves what is missing, never less, and names a size that is not there', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'huge-pages-'));
  try {
    const file = join(directory, 'hugepages-2048kB', 'nr_hugepages');
    await mkdir(join(directory, 'hugepages-2048kB'));
    await writeFile(file, '1\n');
    reserveHugePages([{ pageBytes: String(2 * MIB), count: 5 }], directory);
    expect(await readFile(file, 'utf8')).toBe('5');
    reserveHugePages([{ pageBytes: String(2 * MIB), count: 2 }], directory);
    expect(await readFile(file, 'utf8')).toBe('5');
    const gigabytes = [{ pageBytes: String(2 ** 30), count: 1 }];
    expect(() => reserveHugePages(gigabytes, directory)).toThrow('no huge pages of 1048576 KiB');
    expect(() => reserveHugePages([{ pageBytes: '../../2048', count: 1 }], directory)).toThrow('no size of pages');
  } finally {
    await rm(directory, { recursive: true });
  }
});
