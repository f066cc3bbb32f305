/** Images from a private registry, as a kubelet pulls them. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { busyboxImage } from '../support/images.ts';
import { TestNode } from '../support/node.ts';
import { TestPod } from '../support/pods.ts';
import { REGISTRY_PASSWORD, REGISTRY_USER, type Registry, startRegistry } from '../support/registry.ts';

let node: TestNode;
let registry: Registry;
let image: string;
let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'infralet-e2e-registry-'));
  registry = await startRegistry(join(directory, 'registry'), { auth: true });
  const { location } = await busyboxImage(join(directory, 'image'), { user: '1000:2000', multiArch: true });
  await registry.push(location, 'private/app:1', ['--all']);
  image = `${registry.host}/private/app:1`;
  node = await TestNode.start({ settings: { image: { registriesConf: registry.registriesConf } } });
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

const pull = (auth?: { readonly username: string; readonly password: string }) =>
  node.cri.PullImage({ image: { image }, ...(auth ? { auth } : {}) }, { timeoutMs: 60_000 });

test('without or with a wrong password the error says so, names the image, and nothing is kept', async () => {
  await expect(pull()).rejects.toMatchObject({ details: expect.stringContaining(image) });
  await expect(pull({ username: REGISTRY_USER, password: 'wrong' })).rejects.toMatchObject({
    details: expect.stringMatching(/credential|password|unauthorized|login/i),
  });
  expect((await node.cri.ImageStatus({ image: { image } })).image).toBeNull();
});

test('with the right one the image is pulled, listed, run as its user, and removed', async () => {
  const { imageRef } = await pull({ username: REGISTRY_USER, password: REGISTRY_PASSWORD });
  const { image: known } = await node.cri.ImageStatus({ image: { image } });
  expect(known).toMatchObject({ repoTags: [image], uid: { value: '1000' } });
  expect([known?.id, ...(known?.repoDigests ?? [])]).toContain(imageRef);
  const pod = await TestPod.run(node);
  const app = await pod.start('sleep 1000', { image: { image: imageRef } });
  expect(await app.sh('id -u; id -g')).toBe('1000\n2000');
  expect(await app.status()).toMatchObject({ imageId: known?.id, image: { image } });
  // Layers of every kind that today's tools make; containers by digest, by id, and by the shorter of two tags.
  const auth = { username: REGISTRY_USER, password: REGISTRY_PASSWORD };
  for (const compression of ['none', 'zstd'] as const) {
    const { location, id, target } = await busyboxImage(join(directory, compression), { compression, payload: 5000 });
    for (const tag of ['1', 'latest'])
      await registry.push(location, `private/${compression}:${tag}`, ['--preserve-digests']);
    const name = `${registry.host}/private/${compression}`;
    for (const wanted of [`${name}:1`, name]) await node.cri.PullImage({ image: { image: wanted }, auth });
    const byDigest = await pod.start('sleep 1000', { image: { image: `${name}@${target}`, userSpecifiedImage: name } });
    expect(await byDigest.sh('wc -c < /payload')).toBe('5000');
    expect(await byDigest.status()).toMatchObject({
      imageId: id,
      imageRef: `${name}@${target}`,
      image: { image: `${name}:latest` },
    });
    const byId = await pod.start('sleep 1000', { image: { image: id, userSpecifiedImage: `${name}:1` } });
    expect(await byId.status()).toMatchObject({ imageId: id, image: { image: `${name}:1` } });
  }
  await pod.remove();
  await node.cri.RemoveImage({ image: { image: imageRef } });
  expect((await node.cri.ImageStatus({ image: { image } })).image).toBeNull();
  const log = await node.daemonLog();
  expect(log).not.toContain(REGISTRY_PASSWORD);
});
