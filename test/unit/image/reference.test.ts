import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  formatReference,
  parseReference,
  registryOfServerAddress,
  repositoryName,
} from '../../../src/image/reference.ts';

const DIGEST = `sha256:${'ab'.repeat(32)}`;

describe('names are read as every container tool reads them', () => {
  test.each([
    ['busybox', 'docker.io/library/busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36'],
    ['team/app', 'docker.io/team/app:latest'],
    ['docker.io/busybox', 'docker.io/library/busybox:latest'],
    ['index.docker.io/busybox', 'docker.io/library/busybox:latest'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/app:2', 'localhost:5000/app:2'],
    ['registry.example/a/b/c', 'registry.example/a/b/c:latest'],
    ['REGISTRY/app', 'REGISTRY/app:latest'],
    ['[::1]:5000/app', '[::1]:5000/app:latest'],
    ['registry.k8s.io/pause:3.9', 'registry.k8s.io/pause:3.9'],
    ['a/b__c/d-e.f:X_1.2-3', 'docker.io/a/b__c/d-e.f:X_1.2-3'],
    [`busybox@${DIGEST}`, `docker.io/library/busybox@${DIGEST}`],
    [`busybox:1@${DIGEST}`, `docker.io/library/busybox@${DIGEST}`],
    [`host:1/a:1@${DIGEST}`, `host:1/a@${DIGEST}`],
  ])('%s', (text, normalised) => {
    expect(formatReference(parseReference(text))).toBe(normalised);
  });

  test.each([
    '',
    'A',
    'a/B',
    'a:',
    ':a',
    'a:b:c',
    'a//b',
    '/a',
    'a/',
    'a b',
    'a@sha256:123',
    `a@${DIGEST}@${DIGEST}`,
    'a@md5:00',
    '-a',
    'a-',
    'a..b',
    'ab'.repeat(32),
    'host:port/a',
    'host:123456/a',
    `a:${'t'.repeat(129)}`,
    'x'.repeat(256),
    'a\0b',
    '../a',
    'docker://a',
    'x'.repeat(10_000),
  ])('refuses %j', (text) => {
    expect(() => parseReference(text)).toThrow('is not an image name');
  });

  test('writing and reading again changes nothing', () => {
    const component = fc.stringMatching(/^[a-z0-9]{1,8}(?:[._-][a-z0-9]{1,8})?$/);
    const registry = fc.constantFrom('docker.io', 'localhost', 'r.example:5000', '[fe80::1]:80');
    const suffix = fc.oneof(fc.stringMatching(/^:\w[\w.-]{0,20}$/), fc.constant(`@${DIGEST}`), fc.constant(''));
    fc.assert(
      fc.property(registry, fc.array(component, { minLength: 1, maxLength: 3 }), suffix, (host, parts, end) => {
        const once = parseReference(`${host}/${parts.join('/')}${end}`);
        expect(parseReference(formatReference(once))).toStrictEqual(once);
        expect(formatReference(once).startsWith(repositoryName(once))).toBe(true);
      }),
    );
  });

  test('any text is read or refused, never worse', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          parseReference(text);
        } catch (error) {
          expect(error).toMatchObject({ code: 'INVALID_ARGUMENT' });
        }
      }),
    );
  });
});

test.each([
  ['https://index.docker.io/v1/', 'docker.io'],
  ['docker.io', 'docker.io'],
  ['registry-1.docker.io', 'docker.io'],
  ['https://r.example:5000/v2/', 'r.example:5000'],
  ['r.example', 'r.example'],
])('server address %s means registry %s', (address, registry) => {
  expect(registryOfServerAddress(address)).toBe(registry);
});
