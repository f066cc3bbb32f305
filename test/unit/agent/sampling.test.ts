/** What the agent makes of a machine's files; their content is that of real ones (Linux 6.12, containerd 1.7, crun). */
import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readUsage } from '../../../src/agent/cgroup.ts';
import { readInterfaces } from '../../../src/agent/interfaces.ts';
import { Layers } from '../../../src/agent/layers.ts';
import { parseOptions } from '../../../src/agent/options.ts';
import { Sampler } from '../../../src/agent/sampler.ts';
import { writeGroup, writePod } from '../../support/agent/guest-files.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sampling-'));
});
afterEach(() => rmSync(root, { recursive: true }));

test('the files of a cgroup', () => {
  writeGroup(root);
  expect(readUsage(root)).toEqual({
    cpuUs: 5_120_341,
    cpuUserUs: 4_100_000,
    cpuSystemUs: 1_020_341,
    cpuPeriods: 220,
    cpuThrottledPeriods: 17,
    cpuThrottledUs: 812_345,
    memory: 31_457_280,
    memoryLimit: 67_108_864,
    memoryPeak: 41_943_040,
    anon: 10_485_760,
    file: 20_971_520,
    kernel: 1_048_576,
    mappedFile: 4_194_304,
    activeAnon: 8_388_608,
    inactiveAnon: 2_097_152,
    activeFile: 12_582_912,
    inactiveFile: 8_388_608,
    pageFaults: 12_345,
    majorPageFaults: 67,
    swap: 0,
    limitHits: 5,
    oomKills: 1,
    pids: 4,
    pidsLimit: 100,
    readBytes: 4096 + 1_048_576,
    writeBytes: 8192,
    reads: 1 + 12,
    writes: 2,
    cpuPressure: {
      some: { avg10: 1.53, avg60: 0.87, avg300: 0.25, totalUs: 123_456 },
      full: { avg10: 0.1, avg60: 0, avg300: 0, totalUs: 789 },
    },
    memoryPressure: null,
    ioPressure: null,
  });
});

test('a group that is gone, or holds nonsense, is all zero', () => {
  const gone = readUsage(join(root, 'gone'));
  expect(gone).toMatchObject({ cpuUs: 0, memory: 0, pids: 0, cpuPressure: null });
  expect('memoryLimit' in gone).toBe(false);
  for (const file of ['cpu.stat', 'memory.stat', 'io.stat', 'cpu.pressure'])
    writeFileSync(join(root, file), '\0garbage -7\n\n= x');
  writeFileSync(join(root, 'memory.current'), '-5\n');
  writeFileSync(join(root, 'pids.current'), '99999999999999999999999\n');
  expect(readUsage(root)).toMatchObject({ cpuUs: 0, memory: 0, pids: 0, reads: 0, cpuPressure: null });
});

test('the interfaces of a namespace, without its loopback', () => {
  const file = join(root, 'dev');
  writeFileSync(
    file,
    [
      'Inter-|   Receive                                                |  Transmit',
      ' face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed',
      '    lo:    1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0',
      '  eth0: 4294967297     321    1    2    0     0          0         0    98765     123    3    4    0     0       0          0',
      'eth0:1:      5       1    0    0    0     0          0         0        6       1    0    0    0     0       0          0',
      '',
    ].join('\n'),
  );
  expect(readInterfaces(file)).toEqual([
    {
      name: 'eth0',
      rxBytes: 4_294_967_297,
      rxPackets: 321,
      rxErrors: 1,
      rxDropped: 2,
      txBytes: 98_765,
      txPackets: 123,
      txErrors: 3,
      txDropped: 4,
    },
    expect.objectContaining({ name: 'eth0:1', rxBytes: 5, txBytes: 6 }),
  ]);
  expect(readInterfaces(join(root, 'none'))).toEqual([]);
});

test('what a container has written is what du counts, and it is looked at again only after a while', async () => {
  const layer = join(root, 'fs');
  mkdirSync(join(layer, 'var', 'log'), { recursive: true });
  writeFileSync(join(layer, 'var', 'log', 'app'), Buffer.alloc(300_000, 1));
  linkSync(join(layer, 'var', 'log', 'app'), join(layer, 'same'));
  symlinkSync('/', join(layer, 'everything'));
  for (let n = 0; n < 150; n += 1) writeFileSync(join(layer, 'var', `f${n}`), 'x');
  const layers = new Layers();
  const directories = new Map([['a', layer]]);
  await layers.look(directories, 60_000);
  const first = layers.get('a');
  expect([first?.bytes, first?.inodes]).toEqual([Number(du(layer, '-B1')), Number(du(layer, '--inodes'))]);

  writeFileSync(join(layer, 'more'), Buffer.alloc(100_000, 1));
  await layers.look(directories, 60_000);
  expect(layers.get('a')).toBe(first);
  // With no time between two walks at all, only what the last one took holds the next one back.
  await layers.look(
    new Map([
      ['a', layer],
      ['b', layer],
    ]),
    60_000,
  );
  expect(layers.get('b')?.bytes).toBe(Number(du(layer, '-B1')));
  await layers.look(new Map(), 0);
  expect([layers.get('a'), layers.get('b')]).toEqual([undefined, undefined]);
});

test('a pod: its containers without the sandbox, network by the sandbox, layers by the mounts', async () => {
  const { containers, written } = writePod(root);
  const sampler = new Sampler(parseOptions([`--root=${root}`]));
  const first = sampler.take(60_000);
  expect(first.containers?.map(({ id }) => id).sort()).toEqual([...containers].sort());
  expect(first.pod).toMatchObject({ memory: 31_457_280 });
  expect(first.interfaces).toMatchObject([{ name: 'eth0', rxBytes: 1500 }]);
  expect(first.swapTotal).toBe(1_048_576);
  const later = await untilLayer(sampler);
  expect(later.containers?.find(({ id }) => id === containers[0])?.layer).toMatchObject({
    bytes: Number(du(written, '-B1')),
  });
  expect(Number(later.monotonicUs)).toBeGreaterThan(Number(first.monotonicUs));
});

async function untilLayer(sampler: Sampler) {
  for (;;) {
    const sample = sampler.take(60_000);
    if (sample.containers?.some(({ layer }) => layer)) return sample;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function du(path: string, how: string): string {
  return execFileSync('du', ['-s', how, path], { encoding: 'utf8' }).split('\t')[0] ?? '';
}
