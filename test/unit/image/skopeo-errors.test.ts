import { expect, test } from 'vitest';
import type { Source } from '../../../src/image/skopeo.ts';
import { skopeoError } from '../../../src/image/skopeo-errors.ts';

const source: Source = {
  location: 'docker://r.example/a:1',
  image: 'r.example/a:1',
  registry: 'r.example',
  credentials: undefined,
  trusted: false,
};

// Texts as skopeo 1.9 to 1.18 write them.
test.each([
  ['reading manifest 1 in r.example/a: unauthorized: authentication required', 'UNAUTHENTICATED'],
  [
    'unable to retrieve auth token: invalid username/password: unauthorized: incorrect username or password',
    'UNAUTHENTICATED',
  ],
  [
    'reading manifest 1 in r.example/a: errors:\\ndenied: requested access to the resource is denied',
    'PERMISSION_DENIED',
  ],
  ['reading manifest none in r.example/a: manifest unknown: manifest unknown', 'NOT_FOUND'],
  ['reading manifest 1 in r.example/a: name unknown: repository name not known to registry', 'NOT_FOUND'],
  [
    'pinging container registry r.example: Get \\"https://r.example/v2/\\": dial tcp: lookup r.example: no such host',
    'UNAVAILABLE',
  ],
  [
    'pinging container registry r.example: Get \\"https://r.example/v2/\\": dial tcp 192.0.2.1:443: i/o timeout',
    'UNAVAILABLE',
  ],
  ['Get \\"https://r.example/v2/\\": x509: certificate signed by unknown authority', 'UNAVAILABLE'],
  ['reading manifest 1 in r.example/a: received unexpected HTTP status: 503 Service Unavailable', 'UNAVAILABLE'],
  [
    'reading manifest 1 in docker.io/library/a: toomanyrequests: You have reached your pull rate limit',
    'RESOURCE_EXHAUSTED',
  ],
  ['Source image rejected: A signature was required, but no signature exists', 'FAILED_PRECONDITION'],
  [
    'choosing image instance: no image found in manifest list for architecture amd64, variant \\"\\", OS linux',
    'NOT_FOUND',
  ],
  [
    '(Mirrors also failed: [m.example/a:1: reading manifest 1 in m.example/a: manifest unknown: manifest unknown]): r.example/a:1: pinging container registry r.example: dial tcp: lookup r.example: no such host',
    'UNAVAILABLE',
  ],
  ['writing blob: write /var/lib/x: no space left on device', 'RESOURCE_EXHAUSTED'],
  ['something nobody has seen yet', 'UNKNOWN'],
])('%s', (message, code) => {
  const stderr = `Getting image source signatures\ntime="2026-01-01T00:00:00Z" level=fatal msg="${message}"\n`;
  const error = skopeoError(source, stderr);
  expect(error.code).toBe(code);
  expect(error.message).toContain('r.example/a:1');
  expect(error.message).toContain(message.replaceAll('\\"', '"').replaceAll('\\n', ' '));
  expect(error.hint).toMatch(/\w/);
});
