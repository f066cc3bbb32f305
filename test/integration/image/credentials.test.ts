/** A registry with passwords: who gets in, what the others are told, and that no secret leaks. */
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { RegistryAuth } from '../../../src/image/service.ts';
import type { Logger } from '../../../src/telemetry/log.ts';
import { openStore, registryAuth, scratchDirectory, soon } from '../../support/image-bench.ts';
import { type BusyboxImage, busyboxImage } from '../../support/images.ts';
import {
  insecureRegistries,
  REGISTRY_PASSWORD,
  REGISTRY_USER,
  type Registry,
  startRegistry,
} from '../../support/registry.ts';
import { startTokenProxy } from '../../support/token-proxy.ts';

let scratch: Awaited<ReturnType<typeof scratchDirectory>>;
let registry: Registry;
let image: BusyboxImage;
let name: string;

beforeAll(async () => {
  scratch = await scratchDirectory();
  registry = await startRegistry(join(scratch.path, 'registry'), { auth: true });
  image = await busyboxImage(join(scratch.path, 'image'));
  await registry.push(image.location, 'private/app:1');
  name = `${registry.host}/private/app:1`;
});

afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

const store = (directory: string, config = {}): ReturnType<typeof openStore> =>
  openStore(join(scratch.path, directory), { registriesConf: registry.registriesConf, ...config });
const password = { username: REGISTRY_USER, password: REGISTRY_PASSWORD };
const basic = Buffer.from(`${REGISTRY_USER}:${REGISTRY_PASSWORD}`).toString('base64');

test.each([
  ['user name and password', (): RegistryAuth | undefined => registryAuth(password)],
  ['the auth field', (): RegistryAuth | undefined => registryAuth({ auth: basic })],
  ['a server address', (): RegistryAuth | undefined => registryAuth({ ...password, serverAddress: registry.host })],
  [
    'a server address with scheme and path',
    (): RegistryAuth | undefined => registryAuth({ ...password, serverAddress: `http://${registry.host}/v2/` }),
  ],
] as const)('lets in who has %s', async (what, auth) => {
  await using images = await store(`in-${what.replaceAll(' ', '-')}`);
  expect((await images.pull(name, auth(), soon())).id).toBe(image.id);
});

test.each([
  ['nobody', (): RegistryAuth | undefined => undefined, /asks for credentials/, /imagePullSecret for 127\.0\.0\.1/],
  ['empty credentials', (): RegistryAuth | undefined => registryAuth({}), /asks for credentials/, /imagePullSecret/],
  [
    'a wrong password',
    (): RegistryAuth | undefined => registryAuth({ ...password, password: 'wrong' }),
    /refused the credentials/,
    /check user name and password/,
  ],
  [
    'credentials for another registry',
    (): RegistryAuth | undefined => registryAuth({ ...password, serverAddress: 'elsewhere.example' }),
    /asks for credentials/,
    /imagePullSecret/,
  ],
] as const)('turns away %s and says what to do', async (what, auth, message, hint) => {
  await using images = await store(`out-${what.replaceAll(' ', '-')}`);
  const error = await images.pull(name, auth(), soon()).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: 'UNAUTHENTICATED', message: expect.stringMatching(message) });
  expect(error).toMatchObject({ message: expect.stringContaining(name), hint: expect.stringMatching(hint) });
  expect(images.list()).toStrictEqual([]);
});

test('refuses a registry token, and an auth field that is none', async () => {
  await using images = await store('unusable');
  for (const auth of [{ registryToken: 'abc' }, { auth: 'bm9jb2xvbg==' }]) {
    await expect(images.pull(name, registryAuth(auth), soon())).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
});

test('a present image does not excuse wrong credentials', async () => {
  await using images = await store('present');
  await images.pull(name, registryAuth(password), soon());
  await expect(images.pull(name, undefined, soon())).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  await expect(images.pull(name, registryAuth({ ...password, password: 'wrong' }), soon())).rejects.toMatchObject({
    code: 'UNAUTHENTICATED',
  });
});

test('buys its way in with an identity token', async () => {
  await using open = await startRegistry(join(scratch.path, 'open-registry'));
  await open.push(image.location, 'app:1');
  await using proxy = await startTokenProxy(open.host, 'a refresh token');
  const registriesConf = join(scratch.path, 'token-registries.conf');
  await writeFile(registriesConf, insecureRegistries([proxy.host]));
  await using images = await store('token', { registriesConf });
  const reference = `${proxy.host}/app:1`;
  const pulled = await images.pull(reference, registryAuth({ identityToken: 'a refresh token' }), soon());
  expect(pulled.id).toBe(image.id);
  await expect(images.pull(reference, registryAuth({ identityToken: 'none' }), soon())).rejects.toMatchObject({
    code: 'UNAUTHENTICATED',
    message: expect.stringContaining('refused the credentials'),
  });
});

test('puts no secret on a command line, in an environment, in a log, or in a file that stays', async () => {
  const spy = join(scratch.path, 'spy');
  const seen = join(scratch.path, 'seen');
  await writeFile(
    spy,
    `#!/bin/sh
{ tr '\\0' ' ' < /proc/$$/cmdline; env; for f in "$@"; do [ -f "$f" ] && stat -c '%n %a' "$f"; done; } >> ${seen}
exec skopeo "$@"
`,
  );
  await chmod(spy, 0o755);
  const lines: string[] = [];
  const log = recordingLogger(lines);
  await using images = await openStore(
    join(scratch.path, 'spied'),
    { registriesConf: registry.registriesConf, skopeo: spy },
    log,
  );
  await images.pull(name, registryAuth(password), soon());
  await images.pull(name, registryAuth({ ...password, password: 'not this one' }), soon()).catch(() => undefined);
  const recorded = await readFile(seen, 'utf8');
  expect(recorded).toContain('--authfile');
  expect(recorded).toMatch(/auth\.json 600/);
  for (const secret of [REGISTRY_PASSWORD, basic, 'not this one', Buffer.from('not this one').toString('base64')]) {
    expect(recorded).not.toContain(secret);
    expect(lines.join('\n')).not.toContain(secret);
  }
  const left = await readdir(join(scratch.path, 'spied'), { recursive: true });
  expect(left.filter((path) => /auth|sink|ingest\/./.test(path))).toStrictEqual([]);
});

function recordingLogger(lines: string[]): Logger {
  const write = (message: string, fields?: unknown): void => {
    lines.push(`${message} ${JSON.stringify(fields)}`);
  };
  const logger: Logger = { trace: write, debug: write, info: write, warn: write, error: write, child: () => logger };
  return logger;
}
