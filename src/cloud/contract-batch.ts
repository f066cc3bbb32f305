/** A batch of launches in which each request has its own fate, as the contract wants it. */
import { InfraletError } from '../base/errors.ts';
import type { Instance, LaunchRequest, LaunchResult } from './contract.ts';

/** Bytes of UTF-8. */
export const MAX_USER_DATA = 4096;

/** What breaks the contract is refused before `launchOne` hears of it. */
export async function eachLaunch(
  batch: readonly LaunchRequest[],
  launchOne: (request: LaunchRequest) => Promise<Instance>,
): Promise<readonly LaunchResult[]> {
  return await Promise.all(
    batch.map(async (request): Promise<LaunchResult> => {
      try {
        checkRequest(request);
        return { token: request.token, ok: true, instance: await launchOne(request) };
      } catch (error) {
        return { token: request.token, ok: false, error };
      }
    }),
  );
}

function checkRequest({ token, userData }: LaunchRequest): void {
  if (!/^[\x21-\x7e]{1,64}$/.test(token)) {
    throw new InfraletError(
      'INVALID_ARGUMENT',
      `the launch token ${JSON.stringify(token)} is not 1 to 64 printable ASCII characters`,
    );
  }
  const size = Buffer.byteLength(userData);
  if (size > MAX_USER_DATA) {
    throw new InfraletError(
      'INVALID_ARGUMENT',
      `the user data of launch ${token} have ${size} bytes, more than ${MAX_USER_DATA}`,
    );
  }
}
