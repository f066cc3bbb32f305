import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { choosePlatform, parseConfig, parseManifest, splitUser } from '../../../src/image/manifest.ts';

const digest = (letter: string): string => `sha256:${letter.repeat(64)}`;
const bytes = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));
const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: digest('b'), size: 2 };
const manifest = {
  schemaVersion: 2,
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digest('a'), size: 1 },
  layers: [layer],
};
const amd64 = { os: 'linux', architecture: 'amd64' };

describe('manifests', () => {
  test('OCI and Docker, with and without their own media type', () => {
    expect(parseManifest(bytes(manifest), 'x')).toMatchObject({ kind: 'manifest', mediaType: manifest.mediaType });
    const docker = {
      ...manifest,
      mediaType: undefined,
      config: { ...manifest.config, mediaType: 'application/vnd.docker.container.image.v1+json' },
    };
    expect(parseManifest(bytes(docker), 'x')).toMatchObject({
      mediaType: 'application/vnd.docker.distribution.manifest.v2+json',
    });
    expect(parseManifest(bytes({ ...manifest, annotations: null }), 'x')).toMatchObject({ annotations: {} });
  });

  test.each([
    ['a foreign layer', { ...layer, mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip' }],
    ['a non-distributable layer', { ...layer, mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar' }],
    ['a layer with addresses', { ...layer, urls: ['http://elsewhere.example'] }],
  ])('refuses %s', (_what, foreign) => {
    expect(() => parseManifest(bytes({ ...manifest, layers: [foreign] }), 'x')).toThrow('outside its registry');
  });

  test.each([
    ['no JSON', Buffer.from('{')],
    ['a schema of its own', bytes({ schemaVersion: 3 })],
    ['a wrong digest', bytes({ ...manifest, layers: [{ ...layer, digest: 'sha256:../../etc/passwd' }] })],
    ['a negative size', bytes({ ...manifest, layers: [{ ...layer, size: -1 }] })],
    ['too many layers', bytes({ ...manifest, layers: Array.from({ length: 1001 }, () => layer) })],
    ['too many bytes', Buffer.alloc(5 * 1024 * 1024, ' ')],
  ])('refuses %s', (_what, data) => {
    expect(() => parseManifest(data, 'the image')).toThrow(/image the image is malformed/);
  });

  test('takes every kind of layer that containerd unpacks, and names one that it does not', () => {
    const oci = 'application/vnd.oci.image.layer.v1.tar';
    const docker = 'application/vnd.docker.image.rootfs.diff.tar';
    const parse = (mediaType: string) => parseManifest(bytes({ ...manifest, layers: [{ ...layer, mediaType }] }), 'x');
    for (const good of [oci, `${oci}+gzip`, `${oci}+zstd`, `${docker}.gzip`, `${docker}.zstd`, docker]) {
      expect(parse(good)).toMatchObject({ kind: 'manifest', layers: [{ mediaType: good }] });
    }
    expect(() => parse('application/vnd.cncf.helm.chart.content.v1.tar+gzip')).toThrow(
      /cannot be run: its layer sha256:.* is of type "application\/vnd\.cncf\.helm/,
    );
    expect(() => parse(`${oci}+gzip+encrypted`)).toThrow(
      expect.objectContaining({ hint: expect.stringContaining('keys') }),
    );
    for (const windows of [
      `${docker.replace('.diff', '.foreign.diff')}.gzip`,
      `${oci.replace('.layer', '.layer.nondistributable')}+gzip`,
    ]) {
      expect(() => parse(windows)).toThrow('outside its registry');
    }
  });

  test('refuses schema 1', () => {
    expect(() => parseManifest(bytes({ schemaVersion: 1, fsLayers: [] }), 'x')).toThrow('schema 1');
  });

  test('any JSON is read or refused with an error of ours', () => {
    fc.assert(
      fc.property(fc.json(), (json) => {
        try {
          parseManifest(Buffer.from(json), 'x');
        } catch (error) {
          expect(error).toMatchObject({ name: 'InfraletError' });
        }
      }),
    );
  });
});

describe('indexes', () => {
  const entry = (letter: string, platform?: object): object => ({ ...layer, digest: digest(letter), platform });
  const choose = (...manifests: object[]): string => {
    const parsed = parseManifest(bytes({ schemaVersion: 2, manifests }), 'x');
    if (parsed.kind !== 'index') throw new Error('not an index');
    return choosePlatform(parsed, amd64, 'x').digest;
  };

  test('give the platform wherever it stands, else an entry without one', () => {
    const arm = entry('c', { os: 'linux', architecture: 'arm64' });
    expect(choose(arm, entry('d', amd64), entry('e'))).toBe(digest('d'));
    expect(choose(arm, entry('e'))).toBe(digest('e'));
    expect(() => choose(arm, entry('f', { os: 'windows', architecture: 'amd64' }))).toThrow(
      'is not made for linux/amd64: it offers linux/arm64, windows/amd64',
    );
    const attestation = entry('a', { os: 'unknown', architecture: 'unknown' });
    expect(() => choose(attestation, arm)).toThrow(/offers linux\/arm64$/);
    expect(() => choose()).toThrow('no platform at all');
  });
});

test('configurations of other platforms are refused', () => {
  expect(parseConfig(bytes({ ...amd64, config: { User: 'x' } }), amd64, 'x').user).toBe('x');
  expect(parseConfig(bytes({ config: null }), amd64, 'x').user).toBe('');
  expect(() => parseConfig(bytes({ os: 'linux', architecture: 'arm64' }), amd64, 'x')).toThrow('it offers linux/arm64');
});

test.each([
  ['', undefined, ''],
  ['0', 0, ''],
  ['1000', 1000, ''],
  ['1000:1000', 1000, ''],
  ['1000:staff', 1000, ''],
  ['www-data', undefined, 'www-data'],
  ['www-data:staff', undefined, 'www-data'],
  [':1', undefined, ''],
])('user %j', (user, uid, username) => {
  expect(splitUser(user)).toStrictEqual({ uid, username });
});
