/** The cgroup above all machines, on this host's own hierarchy. Needs root. */
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cgroupVersion, makeCgroup, removeCgroup, setCpu } from '../../providers/qemu/cgroup.ts';

const signal = AbortSignal.timeout(20_000);

test('machines together weigh as much as they were given, whatever came, went or changed', async () => {
  const parent = `infralet-test-${process.pid}`;
  const version = await cgroupVersion();
  const directory = version === 2 ? join('/sys/fs/cgroup', parent) : join('/sys/fs/cgroup/cpu', parent);
  const weight = async (name: string): Promise<number> =>
    Number(await readFile(join(directory, name, version === 2 ? 'cpu.weight' : 'cpu.shares'), 'utf8'));
  const limits = { shareMillis: 1000, quotaMillis: 2000, memoryBytes: 2 ** 28, maxThreads: 100 };
  await makeCgroup(`${parent}/a`, limits);
  const one = await weight('a');
  expect(await weight('')).toBe(one);
  await makeCgroup(`${parent}/b`, { ...limits, shareMillis: 4000 });
  expect(await weight('b')).toBeGreaterThan(one);
  expect(await weight('')).toBe(one + (await weight('b')));
  await setCpu(`${parent}/b`, { shareMillis: 2000, quotaMillis: 3000 });
  expect(await weight('')).toBe(one + (await weight('b')));
  await removeCgroup(`${parent}/b`, signal);
  expect(await weight('')).toBe(one);
  await removeCgroup(`${parent}/a`, signal);
  await expect(access(directory)).rejects.toThrow('ENOENT');
});
