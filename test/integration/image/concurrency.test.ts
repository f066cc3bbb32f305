/** Many callers at once: limits hold, and nobody pulls the ground from under another. */
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { newSandboxId } from '../../../src/base/ids.ts';
import { digestOf } from '../../../src/image/manifest.ts';
import { listenForGuest } from '../../support/guest-listener.ts';
import { openStore, scratchDirectory, soon } from '../../support/image-bench.ts';
import { type BusyboxImage, busyboxImage } from '../../support/images.ts';
import { type Registry, startRegistry } from '../../support/registry.ts';

let scratch: Awaited<ReturnType<typeof scratchDirectory>>;
let registry: Registry;
let images: BusyboxImage[];

beforeAll(async () => {
  scratch = await scratchDirectory();
  registry = await startRegistry(join(scratch.path, 'registry'));
  images = [];
  for (const number of [0, 1, 2, 3, 4, 5]) {
    const image = await busyboxImage(join(scratch.path, `image-${number}`), { payload: 200_000 });
    await registry.push(image.location, `app:${number}`);
    images.push(image);
  }
});

afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

test('pulls, removals and guests at once never meet a missing blob', async () => {
  const stateDir = join(scratch.path, 'churn');
  {
    await using store = await openStore(stateDir, { registriesConf: registry.registriesConf });
    const sandbox = newSandboxId();
    await using guest = await listenForGuest(store, sandbox);
    const churn = images.map(async (image, number) => {
      const name = `${registry.host}/app:${number}`;
      for (let round = 0; round < 6; round += 1) {
        const record = await store.pull(name, undefined, soon());
        expect(record.id).toBe(image.id);
        // The pull is done and nobody else removes this one: from here on it can be granted, and is readable whole.
        store.grant(sandbox, record.id);
        const reading = image.layers.map(async ({ digest }) => {
          const answer = await fetch(`http://${guest.host}/v2/${record.id.slice(7, 39)}/blobs/${digest}`);
          expect(digestOf(await answer.bytes())).toBe(digest);
        });
        await Promise.all([...reading, store.remove(round % 2 === 0 ? name : record.id, soon())]);
      }
    });
    await Promise.all(churn);
    expect(store.list()).toStrictEqual([]);
    store.revoke(sandbox);
  }
  await using reopened = await openStore(stateDir);
  expect(reopened.list()).toStrictEqual([]);
  expect(await readdir(join(stateDir, 'images/blobs/sha256'))).toStrictEqual([]);
  expect(await readdir(join(stateDir, 'images/ingest'))).toStrictEqual([]);
});

test('runs no more pulls at once than configured', async () => {
  const spy = join(scratch.path, 'spy');
  const trace = join(scratch.path, 'trace');
  await writeFile(spy, `#!/bin/sh\necho + >> ${trace}\nskopeo "$@"\ncode=$?\necho - >> ${trace}\nexit $code\n`);
  await chmod(spy, 0o755);
  await using store = await openStore(join(scratch.path, 'limited'), {
    registriesConf: registry.registriesConf,
    skopeo: spy,
    concurrentPulls: 2,
  });
  await Promise.all(images.map((_image, number) => store.pull(`${registry.host}/app:${number}`, undefined, soon())));
  expect(store.list()).toHaveLength(images.length);
  let running = 0;
  let most = 0;
  for (const sign of (await readFile(trace, 'utf8')).trim().split('\n')) {
    running += sign === '+' ? 1 : -1;
    most = Math.max(most, running);
  }
  expect(most).toBe(2);
});
