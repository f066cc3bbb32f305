/** The ecosystem's own files are honoured: mirrors in registries.conf, certificates in certs.d. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cryptoProvider, SubjectAlternativeNameExtension, X509CertificateGenerator } from '@peculiar/x509';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openStore, scratchDirectory, soon } from '../../support/image-bench.ts';
import { type BusyboxImage, busyboxImage } from '../../support/images.ts';
import { startRegistry } from '../../support/registry.ts';

let scratch: Awaited<ReturnType<typeof scratchDirectory>>;
let image: BusyboxImage;

beforeAll(async () => {
  scratch = await scratchDirectory();
  image = await busyboxImage(join(scratch.path, 'image'), { multiArch: true });
});

afterAll(async () => {
  await scratch[Symbol.asyncDispose]();
});

test('a mirror answers for its registry; the image keeps the name that was asked for', async () => {
  await using registry = await startRegistry(join(scratch.path, 'mirror'));
  await registry.push(image.location, 'copies/app:1', ['--all']);
  const registriesConf = join(scratch.path, 'mirrors.conf');
  await writeFile(
    registriesConf,
    `[[registry]]
prefix = "upstream.invalid/team"
location = "upstream.invalid/team"
[[registry.mirror]]
location = "${registry.host}/copies"
insecure = true
`,
  );
  await using images = await openStore(join(scratch.path, 'mirror-state'), { registriesConf });
  const record = await images.pull('upstream.invalid/team/app:1', undefined, soon());
  expect(record).toMatchObject({ id: image.id, repoTags: ['upstream.invalid/team/app:1'] });
  expect(record.repoDigests).toStrictEqual([`upstream.invalid/team/app@${image.target}`]);
});

test('a registry with its own CA is trusted through certs.d only', async () => {
  const { certificate, key } = await selfSigned(scratch.path);
  await using registry = await startRegistry(join(scratch.path, 'tls'), { tls: { certificate, key } });
  await registry.push(image.location, 'app:1', ['--all']);
  const certsDir = join(scratch.path, 'certs.d');
  await using images = await openStore(join(scratch.path, 'tls-state'), { certsDir });
  await expect(images.pull(`${registry.host}/app:1`, undefined, soon())).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    message: expect.stringContaining('a certificate this node does not trust'),
    hint: expect.stringContaining(`${registry.host}/ca.crt`),
  });
  await mkdir(join(certsDir, registry.host), { recursive: true });
  await writeFile(join(certsDir, registry.host, 'ca.crt'), certificatePem);
  expect((await images.pull(`${registry.host}/app:1`, undefined, soon())).id).toBe(image.id);
});

let certificatePem = '';

async function selfSigned(directory: string): Promise<{ readonly certificate: string; readonly key: string }> {
  cryptoProvider.set(webcrypto);
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const issued = await X509CertificateGenerator.createSelfSigned({
    serialNumber: '01',
    name: 'CN=registry',
    notBefore: new Date(Date.now() - 3_600_000),
    notAfter: new Date(Date.now() + 3_600_000),
    signingAlgorithm: algorithm,
    keys,
    extensions: [new SubjectAlternativeNameExtension([{ type: 'ip', value: '127.0.0.1' }])],
  });
  certificatePem = issued.toString('pem');
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  const certificate = join(directory, 'registry.crt');
  const key = join(directory, 'registry.key');
  await writeFile(certificate, certificatePem);
  await writeFile(key, `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`, { mode: 0o600 });
  return { certificate, key };
}
