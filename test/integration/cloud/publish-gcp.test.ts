/** The disk as an image of a project: packed as Compute Engine wants it, uploaded in pieces, and nothing left in the bucket. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { publish } from '../../../providers/gcp/publish.ts';
import type { PublishedImage } from '../../../src/cloud/contract.ts';
import { type FakeGce, startFakeGce } from '../../support/fake-gce/server.ts';

const MIB = 2 ** 20;
const SIZE = 64 * MIB;
const OBJECT = 'images/infralet-guest-1.tar.gz';
let directory: string;
let file: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'infralet-publish-'));
  file = join(directory, 'guest.img');
  await using handle = await open(file, 'wx');
  await handle.truncate(SIZE);
  // Nothing that packs well: several pieces must go over the wire.
  await handle.write(randomBytes(20 * MIB), 0, 20 * MIB, 5 * MIB);
  await handle.write(Buffer.from('end'), 0, 3, SIZE - 3);
});
afterAll(async () => rm(directory, { recursive: true, force: true }));

async function run(gce: FakeGce, settings: object = {}, signal = AbortSignal.timeout(60_000)): Promise<PublishedImage> {
  return await publish(
    { project: 'p', bucket: 'images', endpoint: gce.endpoint, storageEndpoint: gce.endpoint, ...settings },
    {
      settings: {},
      ...{ file, size: SIZE, name: 'infralet-guest-1', description: 'a disk', tags: { 'infralet.dev/cluster': 'C1' } },
      onProgress: () => undefined,
    },
    signal,
  );
}

test('an image is made of the very bytes, for UEFI and gVNIC; the bucket is empty again', async () => {
  await using gce = await startFakeGce({ operationMs: 20 });
  const image = await run(gce);
  expect(image).toEqual({ id: 'projects/p/global/images/infralet-guest-1', setting: 'image', existed: false });
  expect(gce.images.get('infralet-guest-1')).toMatchObject({
    rawDisk: { source: `https://storage.googleapis.com/${OBJECT}` },
    labels: { 'infralet-dev-cluster': 'c1' },
    guestOsFeatures: expect.arrayContaining([{ type: 'UEFI_COMPATIBLE' }, { type: 'GVNIC' }]),
  });
  const archive = join(directory, 'stored.tar.gz');
  await writeFile(archive, gce.storage.stored.get(OBJECT) ?? '');
  execFileSync('tar', ['-xSzf', archive, '-C', directory]);
  expect((await readFile(join(directory, 'disk.raw'))).equals(await readFile(file))).toBe(true);
  // The magic of GNU's old format, which is the one that Compute Engine reads.
  const header = execFileSync('sh', ['-c', `gzip -dc ${archive} | head -c 512`]);
  expect(header.subarray(257, 265).toString('latin1')).toBe('ustar  \0');
  expect([gce.storage.objects.size, await run(gce)]).toEqual([0, { ...image, existed: true }]);
});

test('an upload that breaks off goes on where the service has it', async () => {
  await using gce = await startFakeGce();
  gce.storage.faults.push({ method: 'PUT', status: 503 }, { method: 'PUT', status: 'cut' });
  await run(gce);
  const archive = join(directory, 'again.tar.gz');
  await writeFile(archive, gce.storage.stored.get(OBJECT) ?? '');
  execFileSync('gzip', ['-t', archive]);
});

test('what fails leaves neither an upload nor an object', async () => {
  await using gce = await startFakeGce();
  gce.storage.faults.push({ method: 'PUT', status: 403 });
  await expect(run(gce)).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
  gce.script.push({ match: /^POST global\/images/, when: 'before', status: 403, reason: 'forbidden' });
  await expect(run(gce)).rejects.toThrow('forbidden');
  expect([gce.storage.objects.size, gce.storage.sessions.size, gce.images.has('infralet-guest-1')]).toEqual([
    0,
    0,
    false,
  ]);
});

test('an object that cannot be removed is named', async () => {
  await using gce = await startFakeGce();
  gce.script.push({ match: /^POST global\/images/, when: 'before', status: 403, reason: 'forbidden' });
  gce.storage.faults.push({ method: 'DELETE', status: 403 });
  await expect(run(gce)).rejects.toThrow(/gs:\/\/images\/infralet-guest-1.tar.gz may be left/);
});
