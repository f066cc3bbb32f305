/** Certificates: what each kind carries. Nothing here reads or writes files. */
import { KeyObject, randomBytes, type webcrypto } from 'node:crypto';
import { KEY_ALGORITHM, x509 } from './x509.ts';

export interface Validity {
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** A certificate with its private key, both PEM. */
export interface KeyedCertificate {
  readonly key: string;
  readonly certificate: string;
  readonly notAfter: number;
}

export interface Issuer {
  readonly certificate: x509.X509Certificate;
  readonly key: webcrypto.CryptoKey;
}

/** The node's own CA: may sign leaves only. */
export async function selfSignedCa(keys: webcrypto.CryptoKeyPair, name: string, validity: Validity): Promise<Issuer> {
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: [{ O: ['infralet'] }, { CN: [name] }],
    ...dates(validity),
    keys,
    signingAlgorithm: KEY_ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate, key: keys.privateKey };
}

/** A leaf whose only name is `uri`; `use` decides which end of a TLS connection it may be. */
export async function issueLeaf(
  issuer: Issuer,
  leaf: {
    readonly publicKey: webcrypto.CryptoKey;
    readonly uri: string;
    readonly use: 'client' | 'server';
    readonly validity: Validity;
  },
): Promise<x509.X509Certificate> {
  const use = leaf.use === 'client' ? x509.ExtendedKeyUsage.clientAuth : x509.ExtendedKeyUsage.serverAuth;
  return await x509.X509CertificateGenerator.create({
    serialNumber: serial(),
    subject: [{ O: ['infralet'] }, { CN: [leaf.use === 'client' ? 'daemon' : 'agent'] }],
    issuer: issuer.certificate.subjectName,
    ...dates(leaf.validity),
    publicKey: leaf.publicKey,
    signingKey: issuer.key,
    signingAlgorithm: KEY_ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([use], true),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: leaf.uri }], true),
      // By key and not by serial number: a CA certificate re-issued for the same key stays the issuer.
      await x509.AuthorityKeyIdentifierExtension.create(issuer.certificate.publicKey),
    ],
  });
}

export function privatePem(key: webcrypto.CryptoKey): string {
  return KeyObject.from(key).export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** X.509 dates have whole seconds. */
function dates(validity: Validity): { notBefore: Date; notAfter: Date } {
  return { notBefore: wholeSecond(validity.notBefore), notAfter: wholeSecond(validity.notAfter) };
}

function wholeSecond(ms: number): Date {
  return new Date(Math.floor(ms / 1000) * 1000);
}

/** 127 random bits: positive without a padding byte, never zero. */
function serial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString('hex');
}
