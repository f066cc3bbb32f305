/** A batch of launches in which each request has its own fate, as the contract wants it. */
import type { Instance, LaunchRequest, LaunchResult } from './contract.ts';

export async function eachLaunch(
  batch: readonly LaunchRequest[],
  launchOne: (request: LaunchRequest) => Promise<Instance>,
): Promise<readonly LaunchResult[]> {
  return await Promise.all(
    batch.map(async (request): Promise<LaunchResult> => {
      try {
        return { token: request.token, ok: true, instance: await launchOne(request) };
      } catch (error) {
        return { token: request.token, ok: false, error };
      }
    }),
  );
}
