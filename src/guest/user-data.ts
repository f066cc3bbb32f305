/** Enrolment tokens and the user data that carries them into a machine. */
import { createHash, randomBytes } from 'node:crypto';
import { InfraletError } from '../base/errors.ts';
import { USER_DATA_VERSION, type UserData } from '../rpc/agent-protocol.ts';

/** What every provider can carry; see LaunchRequest.userData. */
const MAX_BYTES = 4096;

/** 32 random bytes, base64url. */
export function newToken(): string {
  return randomBytes(32).toString('base64url');
}

/** What is kept of a used token. */
export function tokenHash(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

export function encodeUserData(data: Omit<UserData, 'version'>): string {
  const text = JSON.stringify({ version: USER_DATA_VERSION, ...data } satisfies UserData);
  if (Buffer.byteLength(text) > MAX_BYTES) {
    throw new InfraletError('INVALID_ARGUMENT', `the user data has more than ${MAX_BYTES} bytes`, {
      hint: 'shorten the cluster name in the configuration',
    });
  }
  return text;
}
