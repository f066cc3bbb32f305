/** The node's CA: made once, kept, renewed for the same key; what it signs and what not. */
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { certificateRequest, newKey } from '../../../src/agent/certificate.ts';
import { systemClock } from '../../../src/base/time.ts';
import { type NodePki, openPki } from '../../../src/pki/authority.ts';
import { agentUri, daemonUri, namesOnly } from '../../../src/rpc/agent-protocol.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';

const HOUR = 3_600_000;
let dir = '';
let now = Date.parse('2030-01-01T00:00:00Z');
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'infralet-pki-'));
  now = Date.parse('2030-01-01T00:00:00Z');
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

async function open(): Promise<NodePki> {
  return await openPki({
    stateDir: dir,
    cluster: 'prod',
    caLife: 100 * HOUR,
    leafLife: 24 * HOUR,
    renewBefore: 8 * HOUR,
    clockSkew: 60_000,
    clock: { ...systemClock, now: () => now },
    log: nullLogger,
  });
}

test('the CA is made once and kept where only root reads it', async () => {
  const first = await open();
  const file = join(dir, 'pki/ca.pem');
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(statSync(join(dir, 'pki')).mode & 0o777).toBe(0o700);
  expect((await open()).ca).toBe(first.ca);
  const ca = new X509Certificate(first.ca);
  expect(ca.ca).toBe(true);
  expect(first.ca).not.toContain('PRIVATE');
  expect(readFileSync(file, 'utf8')).toContain('PRIVATE KEY');
});

test('agent certificates name one machine, are for servers, and end with the leaf life', async () => {
  const pki = await open();
  const uri = agentUri('prod', 'a'.repeat(32), 'i-1,URI:x');
  const { chain, notAfter } = await pki.signAgent(certificateRequest(newKey()), uri);
  const [leaf, ca] = chain.map((der) => new X509Certificate(der));
  expect(leaf?.verify(new X509Certificate(pki.ca).publicKey)).toBe(true);
  expect(ca?.toString().trim()).toBe(pki.ca.trim());
  expect(namesOnly(leaf?.subjectAltName, uri)).toBe(true);
  expect(leaf?.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1']);
  expect(leaf?.ca).toBe(false);
  expect(notAfter).toBe(now + 24 * HOUR);
  expect(Date.parse(leaf?.validFrom ?? '')).toBe(now - 60_000);
  await expect(pki.signAgent(Buffer.alloc(5000), uri)).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
});

test('the daemon’s certificate is renewed before it ends, under a new key', async () => {
  const pki = await open();
  const first = await pki.client();
  expect(namesOnly(new X509Certificate(first.certificate).subjectAltName, daemonUri('prod'))).toBe(true);
  expect(new X509Certificate(first.certificate).keyUsage).toEqual(['1.3.6.1.5.5.7.3.2']);
  expect(await pki.client()).toBe(first);
  now += 17 * HOUR;
  const second = await pki.client();
  expect(second.key).not.toBe(first.key);
  expect(second.notAfter).toBe(now + 24 * HOUR);
});

test('the CA certificate is made anew at half of its life, and trusts what the old one trusted', async () => {
  const pki = await open();
  const old = new X509Certificate(pki.ca);
  now += 60 * HOUR;
  const client = await pki.client();
  const fresh = new X509Certificate(pki.ca);
  expect(Date.parse(fresh.validTo)).toBe(now + 100 * HOUR);
  expect(fresh.publicKey.equals(old.publicKey)).toBe(true);
  expect(fresh.serialNumber).not.toBe(old.serialNumber);
  const leaf = new X509Certificate(client.certificate);
  expect(leaf.verify(old.publicKey)).toBe(true);
  expect(leaf.checkIssued(old)).toBe(true);
  expect((await open()).ca).toBe(pki.ca);
});

test('a CA file that cannot be read is an error with a way out, not a new CA', async () => {
  await open();
  writeFileSync(join(dir, 'pki/ca.pem'), 'damaged');
  await expect(open()).rejects.toMatchObject({ code: 'DATA_LOSS', hint: expect.stringContaining('backup') });
});
