/** What a bad network, a bad registry and a killed daemon do to pulls: an error that names the cause, and nothing half-valid. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { until } from '../../../src/base/time.ts';
import { type FaultyProxy, startFaultyProxy } from '../../support/faulty-proxy.ts';
import { openStore, scratchDirectory, soon } from '../../support/image-bench.ts';
import { type BusyboxImage, busyboxImage } from '../../support/images.ts';
import { insecureRegistries, type Registry, startRegistry } from '../../support/registry.ts';

const PULL_CHILD = fileURLToPath(new URL('../../support/pull-child.ts', import.meta.url));

let scratch: Awaited<ReturnType<typeof scratchDirectory>>;
let registry: Registry;
let proxy: FaultyProxy;
let image: BusyboxImage;
let registriesConf: string;
let stateDir: string;
let name: string;
let count = 0;

beforeAll(async () => {
  scratch = await scratchDirectory();
  registry = await startRegistry(join(scratch.path, 'registry'));
  proxy = await startFaultyProxy(registry.host);
  image = await busyboxImage(join(scratch.path, 'image'), { payload: 3_000_000 });
  await registry.push(image.location, 'app:1');
  registriesConf = join(scratch.path, 'registries.conf');
  await writeFile(registriesConf, insecureRegistries([proxy.host, registry.host]));
  name = `${proxy.host}/app:1`;
});

afterAll(async () => {
  await proxy[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

beforeEach(() => {
  void proxy.inflict({ kind: 'none' });
  count += 1;
  stateDir = join(scratch.path, `state-${count}`);
});

const open = (config = {}): ReturnType<typeof openStore> => openStore(stateDir, { registriesConf, ...config });
const files = async (path: string): Promise<readonly string[]> => await readdir(join(stateDir, 'images', path));

async function expectNothingLeft(images: Awaited<ReturnType<typeof open>>): Promise<void> {
  expect(images.list()).toStrictEqual([]);
  expect(await files('blobs/sha256')).toStrictEqual([]);
  expect(await files('ingest')).toStrictEqual([]);
}

describe('a pull over a bad line', () => {
  test.each([
    ['is cut', { kind: 'cut', afterBytes: 500_000 }, 'UNAVAILABLE'],
    ['brings other bytes', { kind: 'corrupt', afterBytes: 500_000 }, 'DATA_LOSS'],
  ] as const)('that %s leaves nothing, and works when the line is mended', async (_what, fault, code) => {
    await using images = await open();
    void proxy.inflict(fault);
    await expect(images.pull(name, undefined, soon())).rejects.toMatchObject({
      code,
      message: expect.stringContaining(name),
    });
    await expectNothingLeft(images);
    void proxy.inflict({ kind: 'none' });
    expect((await images.pull(name, undefined, soon())).id).toBe(image.id);
  });

  test('that stalls ends with its caller', async () => {
    await using images = await open();
    const struck = proxy.inflict({ kind: 'stall', afterBytes: 500_000 });
    const caller = new AbortController();
    const pull = images.pull(name, undefined, caller.signal);
    await struck;
    caller.abort(new Error('the kubelet gave up'));
    await expect(pull).rejects.toThrow('the kubelet gave up');
    void proxy.inflict({ kind: 'none' });
    expect((await images.pull(name, undefined, soon())).id).toBe(image.id);
  });

  test('that stalls ends at the time limit', async () => {
    await using images = await open({ pullTimeout: '2s' });
    void proxy.inflict({ kind: 'stall', afterBytes: 500_000 });
    await expect(images.pull(name, undefined, soon())).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    await expectNothingLeft(images);
  });

  test('that stalls does not hold up the shutdown', async () => {
    const images = await open();
    const struck = proxy.inflict({ kind: 'stall', afterBytes: 500_000 });
    const pull = images.pull(name, undefined, soon()).catch((error: unknown) => error);
    await struck;
    await images[Symbol.asyncDispose]();
    expect(await pull).toMatchObject({ code: 'UNAVAILABLE' });
    expect(await files('ingest')).toStrictEqual([]);
  });
});

describe('errors say what to do', () => {
  test.each([
    ['an unknown tag', (): string => `${registry.host}/app:none`, 'NOT_FOUND', /has no such image/],
    ['an unknown repository', (): string => `${registry.host}/nothing/here:1`, 'NOT_FOUND', /has no such image/],
    [
      'an unknown digest',
      (): string => `${registry.host}/app@sha256:${'0'.repeat(64)}`,
      'NOT_FOUND',
      /has no such image/,
    ],
    ['a closed port', (): string => '127.0.0.1:1/app:1', 'UNAVAILABLE', /could not be reached/],
    ['a host that does not exist', (): string => 'registry.invalid/app:1', 'UNAVAILABLE', /could not be reached/],
    ['capitals', (): string => 'Team/App:1', 'INVALID_ARGUMENT', /not an image name/],
    ['two colons', (): string => 'a:b:c', 'INVALID_ARGUMENT', /not an image name/],
    ['an option in disguise', (): string => '--help', 'INVALID_ARGUMENT', /not an image name/],
  ] as const)('for %s', async (_what, reference, code, message) => {
    await using images = await open();
    const error = await images.pull(reference(), undefined, soon()).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code, message: expect.stringMatching(message), hint: expect.stringMatching(/\w/) });
    expect(error).toMatchObject({ message: expect.stringContaining(reference()) });
  });

  test('for a registry without HTTPS', async () => {
    await using images = await openStore(stateDir);
    await expect(images.pull(`${registry.host}/app:1`, undefined, soon())).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('speaks plain HTTP'),
      hint: expect.stringContaining('insecure = true'),
    });
  });

  test('for a missing skopeo', async () => {
    await using images = await open({ skopeo: '/nonexistent/skopeo' });
    await expect(images.pull(name, undefined, soon())).rejects.toMatchObject({
      hint: expect.stringContaining('doctor'),
    });
  });

  test('for a policy that forbids it', async () => {
    const policy = join(scratch.path, 'policy.json');
    await writeFile(policy, JSON.stringify({ default: [{ type: 'reject' }] }));
    await using images = await open({ policy });
    await expect(images.pull(name, undefined, soon())).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('policy'),
    });
  });
});

describe('a restart', () => {
  test('after kill -9 in the middle of a pull finds what was whole, and nothing else', async () => {
    const small = await busyboxImage(join(scratch.path, 'small'), { user: '7' });
    await registry.push(small.location, 'small:1');
    const struck = proxy.inflict({ kind: 'stall', afterBytes: 2_500_000 });
    const child = spawn(process.execPath, [PULL_CHILD, stateDir, registriesConf, `${registry.host}/small:1`, name], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await struck;
    expect(await skopeosOf(stateDir)).toHaveLength(1);
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
    expect(await files('ingest'), 'something was under way').not.toStrictEqual([]);
    await until(async () => (await skopeosOf(stateDir)).length === 0 || undefined, { everyMs: 20, signal: soon(10) });
    await using images = await open();
    expect(await files('ingest')).toStrictEqual([]);
    expect(images.list().map((record) => record.id)).toStrictEqual([small.id]);
    expect(images.list()[0]).toMatchObject({ uid: 7, repoTags: [`${registry.host}/small:1`] });
    expect(await files('blobs/sha256')).toHaveLength(3);
    void proxy.inflict({ kind: 'none' });
    expect((await images.pull(name, undefined, soon())).id).toBe(image.id);
  });

  test('keeps images, drops those whose blobs are damaged, and collects what nobody refers to', async () => {
    const other = await busyboxImage(join(scratch.path, 'other'), { payload: 5000 });
    const third = await busyboxImage(join(scratch.path, 'third'), { payload: 5000 });
    await registry.push(other.location, 'other:1');
    await registry.push(third.location, 'third:1');
    const blob = (digest: string): string => join(stateDir, 'images/blobs/sha256', digest.slice(7));
    {
      await using images = await open();
      for (const tag of ['app:1', 'other:1', 'third:1'])
        await images.pull(`${registry.host}/${tag}`, undefined, soon());
    }
    await truncate(blob(image.layers[1]?.digest ?? ''), 100);
    await rm(blob(third.layers[1]?.digest ?? ''));
    await writeFile(blob(`sha256:${'a'.repeat(64)}`), 'stray');
    await using images = await open();
    expect(images.list().map((record) => record.id)).toStrictEqual([other.id]);
    expect(await files('blobs/sha256')).toHaveLength(4);
    expect((await images.pull(`${registry.host}/app:1`, undefined, soon())).id).toBe(image.id);
    expect(await files('blobs/sha256')).toHaveLength(7);
  });
});

/** Processes that work in a store's directory. */
async function skopeosOf(directory: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name))) {
    const argv = await readFile(join('/proc', pid, 'cmdline'), 'utf8').catch(() => '');
    if (argv.includes('skopeo') && argv.includes(`${directory}/images/ingest`)) found.push(pid);
  }
  return found;
}
