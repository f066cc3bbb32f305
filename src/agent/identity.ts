/**
 * Who the agent is. States: `fresh` (self-signed, no request made) → `requested` (a request is out) → `enrolled`;
 * an enrolled agent may have a renewal pending. Enrolment happens once; it is kept on tmpfs, so that a restarted agent
 * comes back enrolled and a rebooted machine does not.
 */
import { createHash, type KeyObject, X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import { clusterUriPrefix, enrolmentMac, sandboxUriPrefix, type UserData } from '../rpc/agent-protocol.ts';
import { certificateRequest, newKey, privatePem, selfSigned, spki, toPem } from './certificate.ts';

/** What the TLS server shows and trusts, PEM. */
export interface Credentials {
  readonly key: string;
  readonly chain: string;
  readonly ca: string;
}

interface Saved extends Credentials {
  /** SHA-256 of the token: other user data means another machine (a clone), which must enrol itself. */
  readonly tokenHash: string;
}

const NONCE_BYTES = 32;
const MAX_CHAIN = 4;

export class Identity {
  readonly #userData: UserData;
  readonly #file: string;
  readonly #tokenHash: string;
  #credentials: Credentials;
  #enrolled = false;
  /** The key of a request that waits for its certificate. */
  #pending: KeyObject | undefined;
  readonly #firstKey: KeyObject | undefined;

  constructor(userData: UserData, stateDir: string) {
    this.#userData = userData;
    this.#file = join(stateDir, 'agent.json');
    this.#tokenHash = createHash('sha256').update(userData.token).digest('hex');
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    const saved = this.#load();
    if (saved) {
      this.#enrolled = true;
      this.#credentials = { key: saved.key, chain: saved.chain, ca: saved.ca };
      return;
    }
    this.#firstKey = newKey();
    const shown = toPem(selfSigned(this.#firstKey, Date.now()));
    this.#credentials = { key: privatePem(this.#firstKey), chain: shown, ca: userData.ca };
  }

  get enrolled(): boolean {
    return this.#enrolled;
  }

  get credentials(): Credentials {
    return this.#credentials;
  }

  /** First half of enrolment. May be repeated until a certificate is installed: the answer may have been lost. */
  enrol(nonce: Uint8Array): { readonly csr: Buffer; readonly mac: Buffer } {
    if (this.#enrolled || !this.#firstKey) throw refused('this machine has enrolled already; its token is used');
    if (nonce.byteLength !== NONCE_BYTES) {
      throw new InfraletError('INVALID_ARGUMENT', `the nonce must have ${NONCE_BYTES} bytes`);
    }
    const csr = certificateRequest(this.#firstKey);
    this.#pending = this.#firstKey;
    return { csr, mac: enrolmentMac(this.#userData.token, nonce, csr) };
  }

  /** A request under a new key, signed by that key; the call itself came over the verified channel. */
  renew(): Buffer {
    if (!this.#enrolled) throw refused('this machine has not enrolled yet');
    this.#pending = newKey();
    return certificateRequest(this.#pending);
  }

  /** Takes the certificate for the pending request. */
  install(chain: readonly Uint8Array[]): Credentials {
    const key = this.#pending;
    if (!key) throw refused('no certificate request is pending');
    const [leaf, issuer] = parseChain(chain);
    const ca = this.#trusted(issuer);
    if (!der(leaf).equals(spki(key))) {
      throw refused('the certificate is for another key');
    }
    if (!leaf.verify(ca.publicKey)) throw refused("the certificate is not signed by this machine's CA");
    const { cluster, sandboxId } = this.#userData;
    const prefix = `URI:${sandboxId === '' ? clusterUriPrefix(cluster) : sandboxUriPrefix(cluster, sandboxId)}`;
    if (!leaf.subjectAltName?.startsWith(prefix)) throw refused('the certificate is for another sandbox');
    const credentials = { key: privatePem(key), chain: chain.map(toPem).join(''), ca: ca.toString() };
    this.#save({ ...credentials, tokenHash: this.#tokenHash });
    this.#credentials = credentials;
    this.#enrolled = true;
    this.#pending = undefined;
    return credentials;
  }

  /** The CA may come with a new certificate (longer life), never with a new key. */
  #trusted(offered: X509Certificate | undefined): X509Certificate {
    const known = new X509Certificate(this.#credentials.ca);
    if (!offered?.ca || !der(offered).equals(der(known)) || !offered.verify(known.publicKey)) return known;
    return Date.parse(offered.validTo) > Date.parse(known.validTo) ? offered : known;
  }

  #load(): Saved | undefined {
    try {
      const saved: unknown = JSON.parse(readFileSync(this.#file, 'utf8'));
      return isSaved(saved) && saved.tokenHash === this.#tokenHash ? saved : undefined;
    } catch {
      return undefined;
    }
  }

  #save(saved: Saved): void {
    const temporary = `${this.#file}.tmp`;
    writeFileSync(temporary, JSON.stringify(saved), { mode: 0o600 });
    renameSync(temporary, this.#file);
  }
}

function parseChain(chain: readonly Uint8Array[]): readonly [X509Certificate, X509Certificate | undefined] {
  if (chain.length === 0 || chain.length > MAX_CHAIN) throw refused('the chain is empty or too long');
  try {
    const [leaf, issuer] = chain.map((der) => new X509Certificate(Buffer.from(der)));
    if (leaf) return [leaf, issuer];
  } catch {
    // Told below.
  }
  throw refused('the chain holds something that is not a certificate');
}

function der(certificate: X509Certificate): Buffer {
  return certificate.publicKey.export({ type: 'spki', format: 'der' });
}

function isSaved(value: unknown): value is Saved {
  if (typeof value !== 'object' || value === null) return false;
  const fields = new Map<string, unknown>(Object.entries(value));
  return ['key', 'chain', 'ca', 'tokenHash'].every((name) => typeof fields.get(name) === 'string');
}

function refused(why: string): InfraletError {
  return new InfraletError('PERMISSION_DENIED', why);
}
