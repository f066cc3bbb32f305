/** Images from files. */
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseDigest } from '../../../src/base/ids.ts';
import { run } from '../../../src/base/process.ts';
import { DEMO_IMAGE, loadDemoImage } from '../../../src/image/demo.ts';
import { hostPlatform, linuxOn } from '../../../src/image/platform.ts';
import { openStore, type Store, scratchDirectory, soon } from '../../support/image-bench.ts';
import { type BusyboxImage, busyboxImage } from '../../support/images.ts';
import { scratchEnvironment } from '../../support/registry.ts';

let scratch: Awaited<ReturnType<typeof scratchDirectory>>;
let image: BusyboxImage;

beforeAll(async () => {
  scratch = await scratchDirectory();
  image = await busyboxImage(join(scratch.path, 'image'), { payload: 5000, multiArch: true, user: '12' });
});

afterAll(async () => {
  await scratch[Symbol.asyncDispose]();
});

const store = (name: string): Promise<Store> => openStore(join(scratch.path, name));
const skopeo = (...args: readonly string[]): Promise<string> =>
  run('skopeo', ['--insecure-policy', ...args], {
    signal: soon(),
    timeoutMs: 60_000,
    env: scratchEnvironment(scratch.path),
  });

test('an OCI layout, with and without its tag', async () => {
  await using images = await store('layout');
  for (const location of [image.location, `oci:${image.directory}`, image.directory]) {
    const [record] = await images.load(location, ['team/app', 'example.test/app:2'], soon());
    expect(record).toMatchObject({ id: image.id, manifest: image.manifest, size: image.size, uid: 12 });
    expect(record?.repoTags).toStrictEqual(['docker.io/team/app:latest', 'example.test/app:2']);
    expect(record?.repoDigests).toContain(`example.test/app@${image.target}`);
  }
  expect(images.find('team/app')?.id).toBe(image.id);
});

test('an OCI archive', async () => {
  const file = join(scratch.path, 'oci.tar');
  await skopeo('copy', '--quiet', '--all', image.location, `oci-archive:${file}:example.test/archived:3`);
  await using images = await store('oci-archive');
  const [record] = await images.load(`oci-archive:${file}`, [], soon());
  expect(record).toMatchObject({ id: image.id, repoTags: ['example.test/archived:3'] });
  await run('gzip', [file], { signal: soon(), timeoutMs: 10_000 });
  const [zipped] = await images.load(`${file}.gz`, ['example.test/zipped:3'], soon());
  expect(zipped?.repoTags).toStrictEqual(['example.test/archived:3', 'example.test/zipped:3']);
});

test('a Docker archive with its names', async () => {
  const file = join(scratch.path, 'docker.tar');
  const target = `docker-archive:${file}:example.test/docker:4`;
  await skopeo('copy', '--quiet', '--additional-tag', 'example.test/docker:five', image.location, target);
  await using images = await store('docker-archive');
  const [record] = await images.load(file, [], soon());
  expect(record?.repoTags.toSorted()).toStrictEqual(['example.test/docker:4', 'example.test/docker:five']);
  expect(record).toMatchObject({ uid: 12 });
  expect(images.find('example.test/docker:five')?.id).toBe(record?.id);
  await images.remove('example.test/docker:4', soon());
  expect(await readdir(join(scratch.path, 'docker-archive/images/blobs/sha256'))).toStrictEqual([]);
});

test('an index gives what the machines can run, and a store whose machines are others now forgets it', async () => {
  const names = ['example.test/app:2'];
  const there = async (architecture?: string): Promise<string | undefined> => {
    const platform = architecture === undefined ? undefined : linuxOn(architecture);
    await using images = await openStore(join(scratch.path, 'platforms'), {}, undefined, platform);
    const before = images.find('example.test/app:2')?.id;
    await images.load(image.location, names, soon());
    const after = images.find('example.test/app:2')?.id;
    expect(images.list().map(({ id }) => id)).toEqual([after]);
    expect(await images.configuration(parseDigest(after ?? ''))).toMatchObject({
      architecture: (platform ?? hostPlatform()).architecture,
    });
    return before;
  };
  expect(await there()).toBeUndefined();
  expect(await there()).toBe(image.id);
  expect(await there('s390x')).toBeUndefined();
  expect(await there('s390x')).not.toBe(image.id);
  await using images = await openStore(join(scratch.path, 'platforms'), {}, undefined, linuxOn('arm64'));
  expect(images.list()).toEqual([]);
  await expect(images.load(image.location, names, soon())).rejects.toThrow(
    new RegExp(`not made for linux/arm64: it offers linux/s390x, linux/${hostPlatform().architecture}`),
  );
});

test('what cannot be loaded says why and leaves nothing', async () => {
  await using images = await store('bad');
  const text = join(scratch.path, 'text');
  await writeFile(text, 'no image\n'.repeat(1000));
  const damaged = await busyboxImage(join(scratch.path, 'damaged'), { payload: 100 });
  const layer = join(damaged.directory, 'blobs/sha256', damaged.layers[1]?.digest.slice(7) ?? '');
  await writeFile(layer, 'not what it was');
  const incomplete = await busyboxImage(join(scratch.path, 'incomplete'), { payload: 100 });
  await rm(join(incomplete.directory, 'blobs/sha256', incomplete.layers[1]?.digest.slice(7) ?? ''));
  const foreign = await busyboxImage(join(scratch.path, 'foreign'), { foreignOnly: true });
  for (const [source, names, code, message] of [
    ['/nonexistent', ['a'], 'NOT_FOUND', /no image file or directory/],
    [`${image.location}x`, ['a'], 'NOT_FOUND', /no image with the tag "latestx"/],
    [text, ['a'], 'INVALID_ARGUMENT', /not an image archive/],
    [scratch.path, ['a'], 'INVALID_ARGUMENT', /not an OCI layout/],
    [image.location, [], 'INVALID_ARGUMENT', /carries no full name/],
    [image.location, ['A'], 'INVALID_ARGUMENT', /not an image name/],
    [damaged.location, ['a'], 'DATA_LOSS', /should be sha256/],
    [incomplete.location, ['a'], 'DATA_LOSS', /lacks the blob/],
    [foreign.location, ['a'], 'NOT_FOUND', /not made for/],
  ] as const) {
    const error = await images.load(source, names, soon()).catch((caught: unknown) => caught);
    expect(error, source).toMatchObject({ code, message: expect.stringMatching(message) });
  }
  expect(images.list()).toStrictEqual([]);
  expect(await readdir(join(scratch.path, 'bad/images/blobs/sha256'))).toStrictEqual([]);
  expect(await readdir(join(scratch.path, 'bad/images/ingest'))).toStrictEqual([]);
});

test('the demo image, twice', async () => {
  await using images = await openStore(join(scratch.path, 'demo'), { pinned: ['infralet.internal/*'] });
  const first = await loadDemoImage(images, join(scratch.path, 'demo-layout'), soon());
  const second = await loadDemoImage(images, join(scratch.path, 'demo-layout'), soon());
  expect(second).toStrictEqual(first);
  expect(first).toMatchObject({ repoTags: [DEMO_IMAGE], pinned: true });
  expect(images.list()).toHaveLength(1);
});
