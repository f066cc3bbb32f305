/** The disk as an AMI: every byte arrives, what fails is repeated or leaves nothing, what is there is found. */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { publish } from '../../../providers/aws/publish.ts';
import type { PublishedImage } from '../../../src/cloud/contract.ts';
import { type FakeEc2, startFakeEc2 } from '../../support/fake-ec2/server.ts';

const MIB = 2 ** 20;
const SIZE = 1024 * MIB;
let directory: string;
let file: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'infralet-publish-'));
  file = join(directory, 'disk.raw');
  await using handle = await open(file, 'wx');
  await handle.truncate(SIZE);
  // Ends of the disk, neighbours, a block with a single byte.
  for (const at of [0, 3 * MIB, 3 * MIB + 512 * 1024, 200 * MIB + 17, SIZE - 512]) {
    await handle.write(Buffer.alloc(512, at % 251 || 7), 0, 512, at);
  }
});
afterAll(async () => rm(directory, { recursive: true, force: true }));

async function run(ec2: FakeEc2, settings: object = {}, signal = AbortSignal.timeout(60_000)): Promise<PublishedImage> {
  return await publish(
    { region: 'us-east-1', endpoint: ec2.endpoint, ebsEndpoint: ec2.endpoint, snapshotEvery: '5ms', ...settings },
    {
      settings: {},
      ...{ file, size: SIZE, name: 'infralet-guest-1', description: 'a disk', tags: { 'infralet.dev/cluster': 'c' } },
      onProgress: () => undefined,
    },
    signal,
    { accessKeyId: 'test', secretAccessKey: 'test' },
  );
}

test('a snapshot that equals the disk is registered for both firmwares, tagged, and found again', async () => {
  await using ec2 = await startFakeEc2();
  const image = await run(ec2);
  const [snapshot] = ec2.ebs.snapshots.values();
  if (!snapshot) throw new Error('there is no snapshot');
  expect(await ec2.ebs.equals(snapshot, file)).toBe(true);
  // Five places, and nothing of the zeros between them.
  expect([...snapshot.blocks.keys()].sort((a, b) => a - b)).toEqual([0, 6, 7, 400, 2047]);
  expect(snapshot.tags).toMatchObject({ 'infralet.dev/cluster': 'c', Name: 'infralet-guest-1' });
  expect(ec2.ebs.images.get(image.id)?.request).toMatchObject({
    BootMode: 'uefi-preferred',
    EnaSupport: 'true',
    ImdsSupport: 'v2.0',
    Architecture: 'x86_64',
    RootDeviceName: '/dev/xvda',
    'BlockDeviceMapping.1.Ebs.SnapshotId': snapshot.id,
    'TagSpecification.1.ResourceType': 'image',
  });
  expect(image).toMatchObject({ setting: 'imageId', existed: false });
  expect(await run(ec2)).toEqual({ ...image, existed: true });
  expect(ec2.ebs.snapshots.size).toBe(1);
});

test('blocks that are throttled or fail for now are put again', async () => {
  await using ec2 = await startFakeEc2();
  ec2.ebs.faults.push(
    { match: /^PUT .*blocks/, status: 400, code: 'RequestThrottledException', times: 3 },
    { match: /^PUT .*blocks/, status: 500, code: 'InternalServerException', times: 3 },
    { match: /completion/, status: 500, code: 'InternalServerException', times: 1 },
  );
  await run(ec2);
  const [snapshot] = ec2.ebs.snapshots.values();
  expect(snapshot && (await ec2.ebs.equals(snapshot, file))).toBe(true);
});

test('what fails for good, or is ended by the user, leaves no snapshot', async () => {
  await using ec2 = await startFakeEc2();
  ec2.ebs.faults.push({ match: /^PUT .*blocks/, status: 403, code: 'AccessDeniedException', times: 99 });
  await expect(run(ec2)).rejects.toThrow('AccessDenied');
  expect(ec2.ebs.snapshots.size).toBe(0);
  ec2.ebs.faults.length = 0;
  ec2.cloud.script.push({ action: 'RegisterImage', when: 'before', code: 'UnauthorizedOperation', status: 403 });
  await expect(run(ec2)).rejects.toThrow('UnauthorizedOperation');
  expect([ec2.ebs.snapshots.size, ec2.ebs.images.size]).toEqual([0, 0]);
  const ended = new AbortController();
  ec2.ebs.faults.push({ match: /completion/, status: 500, code: 'InternalServerException', times: 99 });
  const work = run(ec2, { attempts: 50 }, ended.signal);
  const stop = setInterval(() => {
    if (ec2.ebs.calls.some((call) => call.includes('completion'))) ended.abort(new Error('enough'));
  }, 5);
  await expect(work).rejects.toThrow();
  clearInterval(stop);
  expect(ec2.ebs.snapshots.size).toBe(0);
});

test('settings of the command line that are none are refused before anything is made', async () => {
  await using ec2 = await startFakeEc2();
  const disk = { file, size: SIZE, name: 'x', description: '', tags: {}, onProgress: () => undefined };
  const section = { region: 'us-east-1', endpoint: ec2.endpoint, ebsEndpoint: ec2.endpoint, subnets: ['subnet-1'] };
  await expect(
    publish(section, { ...disk, settings: { regoin: 'x' } }, AbortSignal.timeout(5000)),
  ).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining('regoin'),
  });
  expect([ec2.calls, ec2.ebs.calls]).toEqual([[], []]);
});

test('a snapshot that cannot be deleted is named, and used by the next try', async () => {
  await using ec2 = await startFakeEc2();
  ec2.cloud.script.push(
    { action: 'RegisterImage', when: 'before', code: 'UnauthorizedOperation', status: 403 },
    { action: 'DeleteSnapshot', when: 'before', code: 'UnauthorizedOperation', status: 403 },
  );
  await expect(run(ec2)).rejects.toThrow(/snapshot snap-\S+ is left/);
  const puts = ec2.ebs.calls.filter((call) => call.startsWith('PUT')).length;
  expect((await run(ec2)).existed).toBe(false);
  expect(ec2.ebs.snapshots.size).toBe(1);
  expect(ec2.ebs.calls.filter((call) => call.startsWith('PUT'))).toHaveLength(puts);
});

test('an upload that was killed goes on in the snapshot that it began', async () => {
  await using ec2 = await startFakeEc2();
  ec2.ebs.faults.push({ match: /completion/, status: 403, code: 'AccessDeniedException', times: 1 });
  ec2.cloud.script.push({ action: 'DeleteSnapshot', when: 'before', code: 'UnauthorizedOperation', status: 403 });
  await expect(run(ec2)).rejects.toThrow('is left');
  const [begun] = ec2.ebs.snapshots.keys();
  await run(ec2);
  expect([...ec2.ebs.snapshots.keys()]).toEqual([begun]);
});
