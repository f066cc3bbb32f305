/** The user data as a firmware file: of a fixed size, padded, and dear to read. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readUserData } from '../../../src/agent/user-data.ts';
import { encodeUserData, newToken } from '../../../src/guest/user-data.ts';
import { selfSignedCa } from '../../../src/pki/issue.ts';
import { newKeyPair } from '../../../src/pki/x509.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'user-data-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

function read(text: string) {
  const file = join(directory, 'raw');
  writeFileSync(file, text);
  return readUserData(file);
}

async function userData(cluster: string): Promise<string> {
  const validity = { notBefore: Date.now(), notAfter: Date.now() + 60_000 };
  const { certificate } = await selfSignedCa(await newKeyPair(), 'a node', validity);
  return encodeUserData({
    ...{ cluster, sandboxId: 'a'.repeat(32), token: newToken(), ca: certificate.toString('pem') },
    ...{ clockMs: Date.now(), entropy: 'x'.repeat(43), maxMessage: 1024 },
  });
}

// Whole blocks of a file end at any byte of the text, also in the middle of the spaces of a certificate.
test('is read whole, whatever its length, with and without padding', async () => {
  const shortest = await userData('c');
  for (let length = 1; length < 1600; length += 1) {
    const cluster = 'c '.repeat(length).slice(0, length);
    const text = shortest.replace('"cluster":"c"', `"cluster":"${cluster}"`);
    expect(read(length % 2 === 0 ? text : text.padEnd(4096, '\n'))?.cluster).toBe(cluster);
  }
});

test('that is blank is that of a template', () => {
  for (const size of [0, 1, 1536, 4096]) expect(read(''.padEnd(size, '\n'))).toBeUndefined();
});

test('that is too long or broken is refused', async () => {
  const text = await userData('c');
  expect(() => read(text.slice(0, -1).padEnd(4096, '\n'))).toThrow('it is not JSON');
  expect(() => read(text.replace('"c"', `"${'c'.repeat(20_000)}"`))).toThrow('the user data is wrong');
});
