/** The registry that guests see, asked by a real client and by a hostile one. */
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { newSandboxId, parseDigest, type SandboxId } from '../../../src/base/ids.ts';
import { run } from '../../../src/base/process.ts';
import { until } from '../../../src/base/time.ts';
import { GuestImages } from '../../../src/container/images.ts';
import type { AgentChannel } from '../../../src/guest/channel.ts';
import { digestOf } from '../../../src/image/manifest.ts';
import type { ImageRecord } from '../../../src/image/service.ts';
import { listenForGuest } from '../../support/guest-listener.ts';
import { openStore, type Store, scratchDirectory, soon } from '../../support/image-bench.ts';
import { type BusyboxImage, busyboxImage } from '../../support/images.ts';
import { scratchEnvironment } from '../../support/registry.ts';

let scratch: Awaited<ReturnType<typeof scratchDirectory>>;
let images: Store;
let source: BusyboxImage;
let record: ImageRecord;
let other: ImageRecord;
let sandbox: SandboxId;
let guest: Awaited<ReturnType<typeof listenForGuest>>;
let repository: string;

async function load(name: string, payload: number): Promise<[BusyboxImage, ImageRecord]> {
  const image = await busyboxImage(join(scratch.path, name), { payload });
  const [loaded] = await images.load(image.location, [`example.test/${name}:1`], soon());
  if (!loaded) throw new Error('nothing was loaded');
  return [image, loaded];
}

beforeAll(async () => {
  scratch = await scratchDirectory();
  images = await openStore(join(scratch.path, 'state'));
  [source, record] = await load('granted', 5_000_000);
  [, other] = await load('other', 1000);
  sandbox = newSandboxId();
  guest = await listenForGuest(images, sandbox);
  images.grant(sandbox, record.id);
  repository = images
    .guestReference(record)
    .replace(/^[^/]*\//, '')
    .replace(/@.*$/, '');
});

afterAll(async () => {
  await images[Symbol.asyncDispose]();
  await guest[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

const url = (path: string, host = guest.host): string => `http://${host}/v2/${path}`;

async function copyBySkopeo(reference: string, directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const flags = ['--insecure-policy', 'copy', '--quiet', '--src-tls-verify=false'];
  await run('skopeo', [...flags, `docker://${reference}`, `dir:${directory}/image`], {
    signal: soon(),
    timeoutMs: 60_000,
    env: scratchEnvironment(directory),
  });
}

test('gives a guest name that containerd takes', () => {
  expect(images.guestReference(record)).toBe(`images.infralet.internal/${record.id.slice(7, 39)}@${record.manifest}`);
});

test('a client pulls the granted image, whole', async () => {
  const directory = join(scratch.path, 'pulled');
  const reference = images.guestReference(record).replace('images.infralet.internal', guest.host);
  await copyBySkopeo(reference, directory);
  expect(digestOf(await readFile(join(directory, 'image', 'manifest.json')))).toBe(record.manifest);
  for (const { digest } of source.layers) {
    expect(digestOf(await readFile(join(directory, 'image', digest.slice(7))))).toBe(digest);
  }
});

test('speaks the protocol: versions, types, digests, lengths, ranges', async () => {
  const ping = await fetch(url(''));
  expect([ping.status, ping.headers.get('docker-distribution-api-version')]).toStrictEqual([200, 'registry/2.0']);
  const manifest = await fetch(url(`${repository}/manifests/${record.manifest}?ns=images.infralet.internal`));
  expect(manifest.headers.get('content-type')).toBe('application/vnd.oci.image.manifest.v1+json');
  expect(manifest.headers.get('docker-content-digest')).toBe(record.manifest);
  expect(digestOf(await manifest.bytes())).toBe(record.manifest);
  const layer = source.layers[1];
  if (!layer) throw new Error('no layer');
  const path = `${repository}/blobs/${layer.digest}`;
  const head = await fetch(url(path), { method: 'HEAD' });
  expect(head.headers.get('content-length')).toBe(String(layer.size));
  const whole = await (await fetch(url(path))).bytes();
  expect(digestOf(whole)).toBe(layer.digest);
  for (const [range, from, to] of [
    ['bytes=0-0', 0, 1],
    ['bytes=1000-', 1000, layer.size],
    [`bytes=10-${layer.size + 50}`, 10, layer.size],
    ['bytes=-5', layer.size - 5, layer.size],
  ] as const) {
    const part = await fetch(url(path), { headers: { range } });
    expect(part.status, range).toBe(206);
    expect(part.headers.get('content-range')).toBe(`bytes ${from}-${to - 1}/${layer.size}`);
    expect(Buffer.compare(await part.bytes(), whole.subarray(from, to)), range).toBe(0);
  }
  const beyond = await fetch(url(path), { headers: { range: `bytes=${layer.size}-` } });
  expect([beyond.status, beyond.headers.get('content-range')]).toStrictEqual([416, `bytes */${layer.size}`]);
});

test('shows nothing that was not granted, and takes nothing', async () => {
  const foreign = images.guestReference(other).replace(/^[^/]*\/|@.*$/g, '');
  for (const path of [
    `${foreign}/manifests/${other.manifest}`,
    `${repository}/manifests/${other.manifest}`,
    `${repository}/blobs/${other.manifest}`,
    `${repository}/blobs/${other.id}`,
    `${repository}/blobs/sha256:${'0'.repeat(64)}`,
    `${repository}/manifests/${record.id}`,
    `${repository}/manifests/other`,
    `${repository}/blobs/..%2f..%2f..%2fimages.db`,
    `${repository}/blobs/../../../images.db`,
    '_catalog',
    `${repository}/tags/list`,
  ]) {
    expect((await fetch(url(path))).status, path).toBe(404);
  }
  for (const method of ['PUT', 'POST', 'PATCH', 'DELETE']) {
    expect((await fetch(url(`${repository}/blobs/${record.id}`), { method })).status, method).toBe(405);
  }
  await using stranger = await listenForGuest(images, newSandboxId());
  expect((await fetch(url(`${repository}/manifests/${record.manifest}`, stranger.host))).status).toBe(404);
});

test('survives garbage, giant headers and too many connections', async () => {
  for (const bytes of ['\0\0\0garbage\r\n\r\n', `GET /v2/ HTTP/1.1\r\nhost: x\r\nbig: ${'x'.repeat(50_000)}\r\n\r\n`]) {
    const [address = '', port = ''] = guest.host.split(':');
    const socket = connect(Number(port), address);
    socket.on('error', () => undefined);
    socket.resume();
    socket.write(bytes);
    await once(socket, 'close');
  }
  const [address = '', port = ''] = guest.host.split(':');
  const sockets = Array.from({ length: 60 }, () => connect(Number(port), address));
  const open = new Set(sockets);
  for (const socket of sockets) {
    socket.on('error', () => undefined);
    socket.once('close', () => open.delete(socket));
  }
  await until(() => open.size <= 32 || undefined, { everyMs: 10, signal: soon() });
  await using stranger = await listenForGuest(images, newSandboxId());
  expect((await fetch(url('', stranger.host))).status, 'other sandboxes do not suffer').toBe(200);
  for (const socket of sockets) socket.destroy();
  await until(() => open.size === 0 || undefined, { everyMs: 10, signal: soon() });
  expect((await fetch(url(''))).status).toBe(200);
});

test('a granted image stays readable after its removal, until the grant ends', async () => {
  const [image, loaded] = await load('removed', 100_000);
  const reader = newSandboxId();
  await using listener = await listenForGuest(images, reader);
  images.grant(reader, loaded.id);
  images.grant(reader, loaded.id);
  await images.remove(loaded.id, soon());
  expect(images.find(loaded.id)).toBeUndefined();
  const reference = images.guestReference(loaded).replace('images.infralet.internal', listener.host);
  await copyBySkopeo(reference, join(scratch.path, 'after-removal'));
  const blob = join(scratch.path, 'state/images/blobs/sha256', image.layers[1]?.digest.slice(7) ?? '');
  expect((await readFile(blob)).length).toBeGreaterThan(0);
  images.revoke(reader);
  await expect(readFile(blob)).rejects.toThrow('ENOENT');
  const path = reference.replace(/^[^/]*\//, '').replace('@', '/manifests/');
  expect((await fetch(url(path, listener.host))).status).toBe(404);
  expect(() => images.grant(reader, loaded.id)).toThrow('is not on this node');
  expect(() => images.grant(reader, parseDigest(`sha256:${'1'.repeat(64)}`))).toThrow('is not on this node');
});

test('an image that is removed while its container waits for the machine still gets there', async () => {
  const [, first] = await load('slow', 1000);
  const [, second] = await load('waiting', 1000);
  const machine = newSandboxId();
  await using listener = await listenForGuest(images, machine);
  const asked = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  // A machine whose containerd takes its time over the first image, and then really pulls.
  const cri = async (method: string, request: { readonly image: { readonly image: string } }) => {
    if (method === 'ImageStatus') return { image: null };
    const reference = request.image.image.replace('images.infralet.internal', listener.host);
    const isFirst = request.image.image === images.guestReference(first);
    if (isFirst) {
      asked.resolve();
      await gate.promise;
    }
    await copyBySkopeo(reference, join(scratch.path, isFirst ? 'pulled-slow' : 'pulled-waiting'));
    return { imageRef: isFirst ? first.id : second.id };
  };
  const channel = { cri: cri as unknown as AgentChannel['cri'] };
  const guestImages = new GuestImages(images);
  const one = guestImages.ensure(machine, first, channel, soon());
  await asked.promise;
  const two = guestImages.ensure(machine, second, channel, soon());
  await images.remove(first.id, soon());
  await images.remove(second.id, soon());
  gate.resolve();
  await Promise.all([one, two]);
  guestImages.forget(machine);
});

test('a guest that does not read does not fill memory', async () => {
  const [big, loaded] = await load('big', 60_000_000);
  images.grant(sandbox, loaded.id);
  const layer = big.layers[1]?.digest ?? '';
  const name = loaded.id.slice(7, 39);
  const [address = '', port = ''] = guest.host.split(':');
  const socket = connect(Number(port), address);
  socket.pause();
  socket.write(`GET /v2/${name}/blobs/${layer} HTTP/1.1\r\nhost: x\r\n\r\n`);
  const before = process.memoryUsage().rss;
  // Another transfer in the meantime shows that the service goes on, and gives the first one time to run away.
  const whole = await (await fetch(url(`${name}/blobs/${layer}`))).bytes();
  expect(whole.length).toBeGreaterThan(60_000_000);
  expect(socket.bytesRead).toBeLessThan(20_000_000);
  expect(process.memoryUsage().rss - before).toBeLessThan(250_000_000);
  socket.destroy();
});
