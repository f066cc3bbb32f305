/** Certificate requests come from guests: bounded, their signature and their kind of key checked. */
import { createPublicKey, type webcrypto } from 'node:crypto';
import { InfraletError } from '../base/errors.ts';
import { KEY_ALGORITHM, x509 } from './x509.ts';

/** A P-256 request with an empty subject has some 200 bytes. */
const MAX_CSR_BYTES = 4096;

export interface CheckedCsr {
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Buffer;
  readonly publicKey: webcrypto.CryptoKey;
}

/** Names and extensions of the request are ignored: the daemon knows better who is asking. */
export async function checkCsr(der: Uint8Array): Promise<CheckedCsr> {
  if (der.byteLength > MAX_CSR_BYTES) throw bad(`it has ${der.byteLength} bytes, more than ${MAX_CSR_BYTES}`);
  try {
    const request = new x509.Pkcs10CertificateRequest(new Uint8Array(der));
    if (!(await request.verify())) throw bad('its signature is wrong');
    const spki = Buffer.from(request.publicKey.rawData);
    const key = createPublicKey({ key: spki, format: 'der', type: 'spki' });
    if (key.asymmetricKeyType !== 'ec' || key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
      throw bad('its key is not an elliptic one on P-256');
    }
    return { spki, publicKey: key.toCryptoKey(KEY_ALGORITHM, true, ['verify']) };
  } catch (error) {
    if (error instanceof InfraletError) throw error;
    throw bad('it cannot be parsed', error);
  }
}

function bad(why: string, cause?: unknown): InfraletError {
  return new InfraletError('PERMISSION_DENIED', `the agent's certificate request is refused: ${why}`, { cause });
}
