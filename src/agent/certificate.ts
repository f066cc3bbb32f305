/** The agent's own certificates: a self-signed one to be reached with before enrolment, and requests for real ones. */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { bitString, context, integer, oid, sequence, set, time, utf8 } from './der.ts';

const ECDSA_WITH_SHA256 = sequence(oid('1.2.840.10045.4.3.2'));
const COMMON_NAME = '2.5.4.3';
const YEAR_MS = 365 * 24 * 3600 * 1000;

export function newKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
}

export function spki(key: KeyObject): Buffer {
  return createPublicKey(key).export({ type: 'spki', format: 'der' });
}

export function privatePem(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

export function toPem(der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

/** Says nothing and is trusted by nobody: it only shows the key that the request names. Dates are wide, clocks are off. */
export function selfSigned(key: KeyObject, nowMs: number): Buffer {
  const subject = name('infralet-agent (not enrolled)');
  const body = sequence(
    context(0, integer(Buffer.from([2]))),
    integer(randomBytes(16)),
    ECDSA_WITH_SHA256,
    subject,
    sequence(time(nowMs - YEAR_MS), time(nowMs + 10 * YEAR_MS)),
    subject,
    spki(key),
  );
  return signed(body, key);
}

/** PKCS #10 without attributes; the daemon decides on names and dates. */
export function certificateRequest(key: KeyObject): Buffer {
  return signed(sequence(integer(Buffer.from([0])), name('infralet-agent'), spki(key), context(0)), key);
}

function signed(body: Buffer, key: KeyObject): Buffer {
  return sequence(body, ECDSA_WITH_SHA256, bitString(sign('sha256', body, { key, dsaEncoding: 'der' })));
}

function name(commonName: string): Buffer {
  return sequence(set(sequence(oid(COMMON_NAME), utf8(commonName))));
}
