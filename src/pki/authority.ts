/**
 * The node's own certificate authority. It signs agents and this daemon, nothing else, and its key never leaves
 * `<stateDir>/pki/ca.pem` (0600, key and certificate in one file, so that they cannot be of different age).
 *
 * Rollover: at half of its life the CA's certificate is made anew **for the same key**. Machines trust the certificate
 * of their user data and take the new one with their next renewal (hours), so all have it long before the old one
 * ends. A new *key* (after a theft) means: stop the daemon, remove the file, start; all machines of the node are then
 * strangers to the daemon and are replaced.
 */
import { createPrivateKey, createPublicKey, webcrypto } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { ensureDirectory, writeFileAtomic } from '../base/files.ts';
import type { Clock } from '../base/time.ts';
import { daemonUri } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { checkCsr } from './csr.ts';
import { type Issuer, issueLeaf, type KeyedCertificate, privatePem, selfSignedCa, type Validity } from './issue.ts';
import { KEY_ALGORITHM, newKeyPair, x509 } from './x509.ts';

export interface PkiOptions {
  readonly stateDir: string;
  /** Goes into every certificate's name. */
  readonly cluster: string;
  /** Milliseconds; see the configuration's section `pki`. */
  readonly caLife: number;
  readonly leafLife: number;
  readonly renewBefore: number;
  readonly clockSkew: number;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface NodePki {
  readonly cluster: string;
  readonly renewBefore: number;
  /** The CA certificate, PEM: what machines get with their user data. */
  readonly ca: string;
  /** The daemon's client certificate; its key lives in memory only and is made anew with each certificate. */
  client(): Promise<KeyedCertificate>;
  /** Signs an agent's request for `uri`. The chain is DER, the agent's certificate first, the CA's last. */
  signAgent(csr: Uint8Array, uri: string): Promise<{ readonly chain: readonly Buffer[]; readonly notAfter: number }>;
}

/** Reads the CA, or makes it when there is none. */
export async function openPki(options: PkiOptions): Promise<NodePki> {
  const path = join(options.stateDir, 'pki', 'ca.pem');
  await ensureDirectory(join(options.stateDir, 'pki'), 0o700);
  let issuer = await readIssuer(path);
  let client: KeyedCertificate | undefined;

  const validity = (life: number, end = Number.POSITIVE_INFINITY): Validity => {
    const now = options.clock.now();
    return { notBefore: now - options.clockSkew, notAfter: Math.min(now + life, end) };
  };

  const current = async (): Promise<Issuer> => {
    const left = issuer ? issuer.certificate.notAfter.getTime() - options.clock.now() : 0;
    if (issuer && left > options.caLife / 2) return issuer;
    const keys = issuer ? { privateKey: issuer.key, publicKey: await publicOf(issuer.key) } : await newKeyPair();
    const made = await selfSignedCa(keys, `infralet node CA (${options.cluster})`, validity(options.caLife));
    await writeFileAtomic(path, privatePem(made.key) + made.certificate.toString('pem'), 0o600);
    options.log.info(issuer ? 'CA certificate renewed for the same key' : 'node CA made', {
      notAfter: made.certificate.notAfter.toISOString(),
    });
    issuer = made;
    return made;
  };

  const first = await current();
  return {
    cluster: options.cluster,
    renewBefore: options.renewBefore,
    get ca() {
      return (issuer ?? first).certificate.toString('pem');
    },
    client: async () => {
      if (client && client.notAfter - options.clock.now() > options.renewBefore) return client;
      const signer = await current();
      const keys = await newKeyPair();
      const certificate = await issueLeaf(signer, {
        publicKey: keys.publicKey,
        uri: daemonUri(options.cluster),
        use: 'client',
        validity: validity(options.leafLife, signer.certificate.notAfter.getTime()),
      });
      client = {
        key: privatePem(keys.privateKey),
        certificate: certificate.toString('pem'),
        notAfter: certificate.notAfter.getTime(),
      };
      return client;
    },
    signAgent: async (csr, uri) => {
      const { publicKey } = await checkCsr(csr);
      const signer = await current();
      const certificate = await issueLeaf(signer, {
        publicKey,
        uri,
        use: 'server',
        validity: validity(options.leafLife, signer.certificate.notAfter.getTime()),
      });
      return {
        chain: [Buffer.from(certificate.rawData), Buffer.from(signer.certificate.rawData)],
        notAfter: certificate.notAfter.getTime(),
      };
    },
  };
}

async function readIssuer(path: string): Promise<Issuer | undefined> {
  let pem: string;
  try {
    pem = await readFile(path, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
  try {
    const key = createPrivateKey(pem).toCryptoKey(KEY_ALGORITHM, true, ['sign']);
    const certificate = new x509.X509Certificate(pem.slice(pem.indexOf('-----BEGIN CERTIFICATE-----')));
    return { certificate, key };
  } catch (error) {
    throw new InfraletError('DATA_LOSS', `the node's CA in ${path} cannot be read`, {
      cause: error,
      hint: 'put the file back from a backup, or remove it: a new CA is made, and all machines of this node are replaced',
    });
  }
}

async function publicOf(key: webcrypto.CryptoKey): Promise<webcrypto.CryptoKey> {
  const jwk = createPublicKey({ key: privatePem(key), format: 'pem' }).export({ format: 'jwk' });
  return await webcrypto.subtle.importKey('jwk', jwk, KEY_ALGORITHM, true, ['verify']);
}
