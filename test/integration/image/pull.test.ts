/** Pulls from a real registry. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../../../src/base/process.ts';
import { openStore, scratchDirectory, soon } from '../../support/image-bench.ts';
import { busyboxImage } from '../../support/images.ts';
import { type Registry, startRegistry } from '../../support/registry.ts';

let scratch: Awaited<ReturnType<typeof scratchDirectory>>;
let registry: Registry;

beforeAll(async () => {
  scratch = await scratchDirectory();
  registry = await startRegistry(join(scratch.path, 'registry'));
});

afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

const fresh = (name: string): string => join(scratch.path, name);
const store = (name: string): ReturnType<typeof openStore> =>
  openStore(fresh(name), { registriesConf: registry.registriesConf });
const blobs = (name: string): Promise<string[]> => readdir(join(fresh(name), 'images', 'blobs', 'sha256'));

describe('a pull', () => {
  test('gives an image its id, names, size and user', async () => {
    const image = await busyboxImage(fresh('plain'), { user: 'www-data:staff', annotations: { colour: 'blue' } });
    await registry.push(image.location, 'team/plain:1');
    await using images = await store('plain-store');
    const record = await images.pull(`${registry.host}/team/plain:1`, undefined, soon());
    expect(record).toStrictEqual({
      id: image.id,
      manifest: image.manifest,
      repoTags: [`${registry.host}/team/plain:1`],
      repoDigests: [`${registry.host}/team/plain@${image.target}`],
      size: image.size,
      uid: undefined,
      username: 'www-data',
      pinned: false,
      annotations: { colour: 'blue' },
    });
    expect(images.list()).toStrictEqual([record]);
    expect(await images.configuration(record.id)).toMatchObject({
      os: 'linux',
      config: { User: 'www-data:staff', Cmd: ['/bin/sh'] },
      rootfs: { type: 'layers', diff_ids: image.layers.map(({ diffId }) => diffId) },
    });
    for (const name of [
      image.id,
      image.id.slice(7),
      image.id.slice(7, 19),
      image.id.slice(0, 19),
      `${registry.host}/team/plain:1`,
      `${registry.host}/team/plain@${image.target}`,
    ]) {
      expect(images.find(name), name).toStrictEqual(record);
    }
    expect(images.find(image.id.slice(7, 18)), 'eleven digits are too few').toBeUndefined();
    expect(images.find(`${registry.host}/team/plain`), 'no :latest').toBeUndefined();
  });

  test('takes this platform from an index and keeps the index digest', async () => {
    const image = await busyboxImage(fresh('multi'), { multiArch: true, user: '1000:1000' });
    await registry.push(image.location, 'multi:latest', ['--all']);
    await using images = await store('multi-store');
    const record = await images.pull(`${registry.host}/multi`, undefined, soon());
    expect(record.id).toBe(image.id);
    expect(record.manifest).toBe(image.manifest);
    expect(record.manifest).not.toBe(image.target);
    expect(record.repoDigests).toStrictEqual([`${registry.host}/multi@${image.target}`]);
    expect(record.uid).toBe(1000);
    expect(record.username).toBe('');
    const byIndex = await images.pull(`${registry.host}/multi@${image.target}`, undefined, soon());
    expect(byIndex.id).toBe(image.id);
    const byManifest = await images.pull(`${registry.host}/multi:whatever@${image.manifest}`, undefined, soon());
    expect(byManifest.repoDigests).toStrictEqual([
      `${registry.host}/multi@${image.target}`,
      `${registry.host}/multi@${image.manifest}`,
    ]);
    expect(byManifest.repoTags).toStrictEqual([`${registry.host}/multi:latest`]);
  });

  test('refuses an image for another platform and names both', async () => {
    const image = await busyboxImage(fresh('foreign'), { foreignOnly: true });
    await registry.push(image.location, 'foreign:1', ['--all']);
    await using images = await store('foreign-store');
    await expect(images.pull(`${registry.host}/foreign:1`, undefined, soon())).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringMatching(/foreign:1 is not made for linux\/\w+: it offers linux\/s390x/),
    });
    expect(images.list()).toStrictEqual([]);
    expect(await blobs('foreign-store')).toStrictEqual([]);
  });

  test.each(['none', 'gzip', 'zstd'] as const)('keeps layers as they are (%s)', async (compression) => {
    const image = await busyboxImage(fresh(`layers-${compression}`), { compression });
    await registry.push(image.location, `layers:${compression}`, ['--preserve-digests']);
    await using images = await store(`layers-${compression}-store`);
    const record = await images.pull(`${registry.host}/layers:${compression}`, undefined, soon());
    expect(record.manifest).toBe(image.manifest);
    expect(record.size).toBe(image.size);
  });

  test("keeps a Docker manifest byte for byte: id and digests are the registry's", async () => {
    const image = await busyboxImage(fresh('docker'));
    await registry.push(image.location, 'docker:1', ['--format=v2s2']);
    const answer = await fetch(`http://${registry.host}/v2/docker/manifests/1`, {
      headers: { accept: 'application/vnd.docker.distribution.manifest.v2+json' },
    });
    const manifest: unknown = await answer.json();
    expect(manifest).toMatchObject({ mediaType: 'application/vnd.docker.distribution.manifest.v2+json' });
    await using images = await store('docker-store');
    const record = await images.pull(`${registry.host}/docker:1`, undefined, soon());
    expect(record.manifest).toBe(answer.headers.get('docker-content-digest'));
    expect(manifest).toMatchObject({ config: { digest: record.id } });
  });

  test('gives one image several tags, and moves a tag that moved', async () => {
    const first = await busyboxImage(fresh('tags-1'), { payload: 100 });
    const second = await busyboxImage(fresh('tags-2'), { payload: 100 });
    await registry.push(first.location, 'tags:a');
    await registry.push(first.location, 'tags:b');
    await using images = await store('tags-store');
    await images.pull(`${registry.host}/tags:a`, undefined, soon());
    const both = await images.pull(`${registry.host}/tags:b`, undefined, soon());
    expect(both.repoTags).toStrictEqual([`${registry.host}/tags:a`, `${registry.host}/tags:b`]);
    await registry.push(second.location, 'tags:b');
    const moved = await images.pull(`${registry.host}/tags:b`, undefined, soon());
    expect(moved.id).toBe(second.id);
    expect(images.find(first.id)?.repoTags).toStrictEqual([`${registry.host}/tags:a`]);
    expect(images.list()).toHaveLength(2);
  });

  test('fetches nothing twice: neither the image again nor a layer that another image has', async () => {
    const first = await busyboxImage(fresh('share-1'), { payload: 1000 });
    const second = await busyboxImage(fresh('share-2'), { payload: 1000 });
    await registry.push(first.location, 'share-1:1');
    await registry.push(second.location, 'share-2:1');
    await using images = await store('share-store');
    const fetched = async (): Promise<number> =>
      (await registry.requests()).filter((line) => /^GET \/v2\/share-\d\/blobs\//.test(line)).length;
    await images.pull(`${registry.host}/share-1:1`, undefined, soon());
    expect(await fetched()).toBe(3);
    await images.pull(`${registry.host}/share-1:1`, undefined, soon());
    expect(await fetched()).toBe(3);
    await images.pull(`${registry.host}/share-2:1`, undefined, soon());
    expect(await fetched(), 'its own layer and its configuration').toBe(5);
    expect(await blobs('share-store')).toHaveLength(7);
  });

  test('is shared by callers that ask at the same time; one that leaves does not stop it', async () => {
    const image = await busyboxImage(fresh('shared'), { payload: 2_000_000 });
    await registry.push(image.location, 'shared:1');
    await using images = await store('shared-store');
    const name = `${registry.host}/shared:1`;
    const impatient = new AbortController();
    const pulls = Array.from({ length: 20 }, () => images.pull(name, undefined, soon()));
    const leaving = images.pull(name, undefined, impatient.signal);
    impatient.abort();
    await expect(leaving).rejects.toThrow('aborted');
    const ids = new Set((await Promise.all(pulls)).map((record) => record.id));
    expect([...ids]).toStrictEqual([image.id]);
    const requests = await registry.requests();
    for (const layer of image.layers) {
      expect(requests.filter((line) => line === `GET /v2/shared/blobs/${layer.digest} 200`)).toHaveLength(1);
    }
  });
});

describe('removal and space', () => {
  test('removes the image with all its names, by any of them; what others share stays', async () => {
    const first = await busyboxImage(fresh('remove-1'), { payload: 1000 });
    const second = await busyboxImage(fresh('remove-2'), { payload: 1000 });
    await registry.push(first.location, 'remove:1');
    await registry.push(first.location, 'remove:also-1');
    await registry.push(second.location, 'remove:2');
    await using images = await store('remove-store');
    for (const tag of ['1', 'also-1', '2']) await images.pull(`${registry.host}/remove:${tag}`, undefined, soon());
    await images.remove(`${registry.host}/remove:also-1`, soon());
    expect(images.list().map((record) => record.id)).toStrictEqual([second.id]);
    expect(images.find(`${registry.host}/remove:1`)).toBeUndefined();
    expect(await blobs('remove-store'), 'manifest, configuration and two layers').toHaveLength(4);
    await images.remove(`${registry.host}/remove:also-1`, soon());
    await images.remove(second.id, soon());
    expect(await blobs('remove-store')).toStrictEqual([]);
    const again = await images.pull(`${registry.host}/remove:1`, undefined, soon());
    expect(again.id).toBe(first.id);
  });

  test('reports what du reports', async () => {
    const image = await busyboxImage(fresh('usage'), { payload: 300_000 });
    await registry.push(image.location, 'usage:1');
    await using images = await store('usage-store');
    await images.pull(`${registry.host}/usage:1`, undefined, soon());
    const { mountpoint, usedBytes, inodesUsed } = await images.usage(soon());
    const du = async (flag: string): Promise<number> =>
      Number.parseInt(await run('du', ['-s', flag, mountpoint], { signal: soon(), timeoutMs: 10_000 }), 10);
    expect(usedBytes).toBe((await du('--block-size=1')) * 1);
    expect(inodesUsed).toBe(await du('--inodes'));
    expect(usedBytes).toBeGreaterThan(image.size);
  });
});
