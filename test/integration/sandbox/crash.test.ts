/**
 * The daemon is killed at every effect it has on the outside, before and after, through the whole life of a pod; then it
 * starts again on the same journal. Afterwards everything asked for exists exactly once, and nothing else does.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { abortable } from '../../../src/base/keyed-lock.ts';
import { until } from '../../../src/base/time.ts';
import type { NodeRuntime } from '../../../src/node-runtime.ts';
import { loadCri } from '../../../src/rpc/load.ts';
import { KillSwitch } from '../../support/kill-switch.ts';
import { podConfig } from '../../support/sandbox-records.ts';
import { IMAGE, World } from '../../support/world.ts';

const signal = AbortSignal.timeout(300_000);
const pod = podConfig({ metadata: { name: 'web', uid: 'uid-1', namespace: 'default', attempt: 0 } });
const { CreateContainer } = loadCri().RuntimeService.service;
const container = CreateContainer.requestDeserialize(
  CreateContainer.requestSerialize({
    config: { metadata: { name: 'app', attempt: 0 }, image: { image: IMAGE }, command: ['/app'] },
  }),
).config;
if (!container) throw new Error('no container configuration');
const app = container;

/** What a kubelet does with a pod, from its start to its end. */
async function life(runtime: NodeRuntime): Promise<void> {
  const sandbox = await runtime.sandboxes.run(pod, '', signal);
  const id = await runtime.containers.create(sandbox, app, pod, signal);
  await runtime.containers.start(id, signal);
  await runtime.containers.stop(id, 1, signal);
  await runtime.containers.remove(id, signal);
  await runtime.sandboxes.stop(sandbox, signal);
  await runtime.sandboxes.remove(sandbox, signal);
}

let directory: string;
let world: World;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'crash-'));
  world = await World.make(directory, { reconciler: { retryInitial: '1ms', sweep: '20ms' } });
});
afterEach(async () => {
  await world.provider[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

async function machines(): Promise<number> {
  const all = await world.provider.describe({ by: 'tags', tags: {} }, signal);
  return all.filter(({ state }) => state !== 'terminated').length;
}

async function count(): Promise<readonly string[]> {
  const killSwitch = new KillSwitch(Number.POSITIVE_INFINITY, 'after');
  await using counted = world.start(killSwitch);
  await life(counted);
  return killSwitch.trace;
}

describe('a daemon killed in the middle', () => {
  test('of anything leaves no machine, no network and no record behind once the pod is gone', async () => {
    const effects = await count();
    expect(effects).toContain('provider.launch');
    expect(effects).toContain('guest.cri');
    for (const when of ['before', 'after'] as const) {
      for (let n = 1; n <= effects.length; n += 1) {
        const where = `killed ${when} effect ${n} (${effects[n - 1]})`;
        const killSwitch = new KillSwitch(n, when);
        const first = world.start(killSwitch);
        void life(first).catch(() => undefined);
        await abortable(killSwitch.killed, signal);
        first.journal[Symbol.dispose]();
        {
          await using second = world.start();
          // A kubelet that sees the sandbox uses it; one that does not asks again for the same pod and attempt.
          const listed = second.sandboxes.list();
          const survivor = listed[0];
          expect(listed.length, where).toBeLessThanOrEqual(1);
          const sandbox = survivor?.ready
            ? survivor.id
            : survivor
              ? undefined
              : await second.sandboxes.run(pod, '', signal);
          if (sandbox !== undefined) {
            expect(await machines(), where).toBe(1);
            expect(world.network.attached.size, where).toBe(1);
          }
          for (const { id } of second.sandboxes.list()) {
            await second.sandboxes.stop(id, signal);
            await second.sandboxes.remove(id, signal);
          }
          await until(async () => ((await machines()) === 0 && world.network.attached.size === 0 ? true : undefined), {
            everyMs: 5,
            signal: AbortSignal.any([signal, AbortSignal.timeout(10_000)]),
          }).catch((error: unknown) => {
            throw new Error(`${where}: something was left behind`, { cause: error });
          });
          expect(second.sandboxes.list(), where).toEqual([]);
          expect(second.containers.list(), where).toEqual([]);
        }
        // What hangs in the dead daemon stays hanging; this only takes its timers away.
        void first[Symbol.asyncDispose]();
        world.guests.guests.clear();
      }
    }
  });

  test('leaves a ready pod and its running container as they are', async () => {
    const first = world.start();
    const sandbox = await first.sandboxes.run(pod, '', signal);
    const id = await first.containers.create(sandbox, app, pod, signal);
    await first.containers.start(id, signal);
    await first[Symbol.asyncDispose]();
    await using second = world.start();
    expect(second.sandboxes.get(sandbox)).toMatchObject({ ready: true, config: pod });
    expect(second.containers.get(id)).toMatchObject({ state: 'CONTAINER_RUNNING', config: app });
    expect(await machines()).toBe(1);
  });

  test('two calls for one attempt make one machine', async () => {
    await using runtime = world.start();
    const [a, b] = await Promise.all([runtime.sandboxes.run(pod, '', signal), runtime.sandboxes.run(pod, '', signal)]);
    expect(a).toBe(b);
    expect(await machines()).toBe(1);
    await runtime.sandboxes.remove(a, signal);
    expect(await machines()).toBe(0);
  });

  test('a caller that gives up is followed by one that joins the work in progress', async () => {
    await using runtime = world.start();
    const impatient = runtime.sandboxes.run(pod, '', AbortSignal.abort());
    await expect(impatient).rejects.toThrow();
    const sandbox = await runtime.sandboxes.run(pod, '', signal);
    expect(runtime.sandboxes.get(sandbox).ready).toBe(true);
    expect(await machines()).toBe(1);
  });

  test('machines and networks that nobody owns are swept away', async () => {
    const owner = {
      'infralet.dev/cluster': 'default',
      'infralet.dev/node': 'node-1',
      'infralet.dev/sandbox': 'f'.repeat(32),
    };
    const shape = { cpuMillis: 1000, memoryBytes: 1, diskBytes: 1 };
    await world.provider.launch([{ token: 'stray', tags: owner, shape, userData: '{}' }], signal);
    await using _runtime = world.start();
    await until(async () => ((await machines()) === 0 ? true : undefined), { everyMs: 5, signal });
  });
});
