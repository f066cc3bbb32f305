import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { difference, snapshot } from '../support/leaks.ts';

const run = (file: string, ...args: readonly string[]): void => {
  execFileSync(file, args, { stdio: 'ignore' });
};

/** Kinds and names that appear while `leak` is there, as far as they carry `mark`. */
async function seen(
  mark: string,
  leak: () => Promise<Disposable> | Disposable,
  marker?: string,
): Promise<readonly string[]> {
  const before = await snapshot(marker);
  await using stack = new AsyncDisposableStack();
  stack.use(await leak());
  return difference(before, await snapshot(marker)).filter((entry) => entry.includes(mark));
}

describe('the leak check', () => {
  const name = `ilk${process.pid}`;

  it('sees a network namespace and its mount', async () => {
    const found = await seen(name, () => {
      run('ip', 'netns', 'add', name);
      return { [Symbol.dispose]: () => run('ip', 'netns', 'del', name) };
    });
    expect(found).toEqual([`network namespace ${name}`, `mount /run/netns/${name}`]);
  });

  it('sees a tap', async () => {
    const found = await seen(name, () => {
      run('ip', 'tuntap', 'add', name, 'mode', 'tap');
      return { [Symbol.dispose]: () => run('ip', 'link', 'del', name) };
    });
    expect(found).toEqual([`network device ${name}`]);
  });

  it('sees a packet filter rule', async () => {
    const found = await seen(name, () => {
      run('nft', 'add', 'table', 'inet', name);
      return { [Symbol.dispose]: () => run('nft', 'delete', 'table', 'inet', name) };
    });
    expect(found.some((entry) => entry.startsWith('packet filter rule') && entry.includes(name))).toBe(true);
  });

  it('sees a file in /var/lib/cni and one in /tmp', async () => {
    const places = [`/var/lib/cni-${name}`, `/tmp/infralet-${name}`];
    const found = await seen(name, () => {
      for (const place of places) {
        mkdirSync(place);
        writeFileSync(join(place, 'x'), '');
      }
      return {
        [Symbol.dispose]: () => {
          for (const place of places) rmSync(place, { recursive: true });
        },
      };
    });
    expect(found).toEqual(places.map((place) => `file ${place}`));
  });

  it('sees a process of the run, though its parent has gone, and none of another run', async () => {
    const marker = `${name}-run`;
    const leak = async (): Promise<Disposable> => {
      // The shell ends at once; the sleep is left to init.
      const shell = spawn('sh', ['-c', 'sleep 1234 >/dev/null 2>&1 & echo $!'], {
        env: { ...process.env, INFRALET_TEST_RUN: marker },
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      const [[pid]] = (await Promise.all([once(shell.stdout, 'data'), once(shell, 'close')])) as [[Buffer], unknown];
      return { [Symbol.dispose]: () => process.kill(Number(String(pid).trim())) };
    };
    expect(await seen('sleep 1234', leak, marker)).toEqual([expect.stringMatching(/^process \d+ sleep 1234$/)]);
    expect(await seen('sleep 1234', leak, `${marker}-other`)).toEqual([]);
  });
});
