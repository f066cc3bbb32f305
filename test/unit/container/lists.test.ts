/** Lists are kept while nothing changes: that must never be seen. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { ContainerState } from '../../../src/container/service.ts';
import { itemwise } from '../../../src/cri/itemwise.ts';
import { loadCri } from '../../../src/rpc/load.ts';
import { containerConfig, sandboxConfig } from '../../support/cri-requests.ts';
import { IMAGE, World } from '../../support/world.ts';

const signal = AbortSignal.timeout(60_000);

test('a list shows each change at once, and is the same object between changes', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'lists-'));
  const world = await World.make(directory);
  try {
    await using runtime = world.start();
    const { sandboxes, containers } = runtime;
    const pods = (): readonly boolean[] => {
      const list = sandboxes.list();
      expect(sandboxes.list()).toBe(list);
      return list.map(({ ready }) => ready);
    };
    const states = (): readonly ContainerState[] => {
      const list = containers.list();
      expect(containers.list()).toBe(list);
      return list.map(({ state }) => state);
    };
    expect([pods(), states()]).toEqual([[], []]);
    const sandbox = await sandboxes.run(sandboxConfig(), '', signal);
    expect([pods(), states()]).toEqual([[true], []]);
    const config = containerConfig({ image: { image: IMAGE } });
    const id = await containers.create(sandbox, config, undefined, signal);
    expect(states()).toEqual(['CONTAINER_CREATED']);
    await containers.start(id, signal);
    expect(states()).toEqual(['CONTAINER_RUNNING']);
    const [other] = containers.list();
    await containers.create(sandbox, { ...config, metadata: { name: 'second', attempt: 0 } }, undefined, signal);
    expect(states()).toEqual(['CONTAINER_RUNNING', 'CONTAINER_CREATED']);
    expect(containers.list()[0]).toBe(other);
    await containers.stop(id, 0, signal);
    expect(states()).toEqual(['CONTAINER_EXITED', 'CONTAINER_CREATED']);
    await containers.remove(id, signal);
    expect(states()).toEqual(['CONTAINER_CREATED']);
    await sandboxes.stop(sandbox, signal);
    expect([pods(), states()]).toEqual([[false], ['CONTAINER_EXITED']]);
    await sandboxes.remove(sandbox, signal);
    expect([pods(), states()]).toEqual([[], []]);
  } finally {
    await world.provider[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  }
});

test('item by item, a list has the encoding that it has as a whole', () => {
  const { responseSerialize, responseDeserialize } = loadCri().RuntimeService.service.ListContainers;
  const serialize = itemwise((response) => responseSerialize(response), 'containers');
  const one = { id: 'a', state: 'CONTAINER_RUNNING', labels: { app: 'web', tier: '' } } as const;
  const two = { id: 'b', state: 'CONTAINER_EXITED', metadata: { name: 'ü', attempt: 7 } } as const;
  for (const containers of [[], [one], [one, two], [two, one, two], [two]]) {
    const response = { containers };
    expect(serialize(response)).toEqual(responseSerialize(response));
    const again = Object.freeze({ containers });
    for (let times = 1; times <= 3; times += 1) expect(serialize(again)).toEqual(responseSerialize(response));
    expect(serialize(again)).toBe(serialize(again));
    expect(responseDeserialize(serialize(response)).containers.map(({ id }) => id)).toEqual(
      containers.map(({ id }) => id),
    );
  }
});
