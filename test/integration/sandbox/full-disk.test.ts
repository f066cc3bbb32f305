/** The disk under the daemon's own state is full: requests are refused with the reason, nothing is lost, and all goes on with room. */
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { run as program } from '../../../src/base/process.ts';
import { until } from '../../../src/base/time.ts';
import { podConfig } from '../../support/sandbox-records.ts';
import { World } from '../../support/world.ts';

const signal = AbortSignal.timeout(80_000);
const pod = (name: string) => podConfig({ metadata: { name, uid: name, namespace: 'default', attempt: 0 } });

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'full-disk-'));
  await program('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', directory], { signal, timeoutMs: 10_000 });
});
afterEach(async () => {
  await program('umount', [directory], { signal: AbortSignal.timeout(10_000), timeoutMs: 10_000 });
  await rm(directory, { recursive: true });
});

/** To the last block. */
async function fill(): Promise<void> {
  for (let file = 0; ; file += 1) {
    const written = await writeFile(join(directory, `filler-${file}`), Buffer.alloc(64 * 1024)).catch(() => 'full');
    if (written === 'full') return;
  }
}

const makeRoom = async (): Promise<void> =>
  void (await program('/bin/sh', ['-c', 'rm "$1"/filler-*', 'sh', directory], { signal, timeoutMs: 10_000 }));

test('asked for more than it can note, the daemon says so; with room again it does it, once', async () => {
  const world = await World.make(directory, { reconciler: { retryInitial: '1ms' } });
  try {
    let first: string;
    {
      await using runtime = world.start();
      first = await runtime.sandboxes.run(pod('first'), '', signal);
      await fill();
      // The journal's file has some room of its own at first; a pod that was noted waits for more of it.
      const waiting: Promise<string>[] = [];
      const refusal = await until(
        async () => {
          const run = runtime.sandboxes.run(pod(`pod-${waiting.length}`), '', signal);
          const soon = AbortSignal.timeout(300);
          const refused = await Promise.race([
            run.then(
              () => undefined,
              (error: unknown) => error,
            ),
            once(soon, 'abort').then(() => undefined),
          ]);
          if (refused === undefined) waiting.push(run);
          return refused;
        },
        { everyMs: 1, signal },
      );
      // As the RPC server tells it.
      expect(InfraletError.from(refusal)).toMatchObject({
        code: 'RESOURCE_EXHAUSTED',
        hint: expect.stringContaining('stateDir'),
      });
      expect(runtime.sandboxes.get(first).ready).toBe(true);
      await makeRoom();
      const others = await Promise.all([...waiting, runtime.sandboxes.run(pod('last'), '', signal)]);
      expect(new Set(others).size).toBe(waiting.length + 1);
      expect(runtime.sandboxes.list()).toHaveLength(waiting.length + 2);
      for (const id of others) await runtime.sandboxes.remove(id, signal);
    }
    await fill();
    {
      // A daemon that is started while there is no room still shows what runs.
      await using runtime = world.start();
      await until(() => (runtime.sandboxes.list().length === 1 ? true : undefined), { everyMs: 1, signal });
      expect(runtime.sandboxes.get(first).ready).toBe(true);
      await makeRoom();
      await runtime.sandboxes.stop(first, signal);
      await runtime.sandboxes.remove(first, signal);
      const machines = await world.provider.describe({ by: 'tags', tags: {} }, signal);
      expect(machines.filter(({ state }) => state !== 'terminated')).toEqual([]);
    }
  } finally {
    await world.provider[Symbol.asyncDispose]();
  }
});
