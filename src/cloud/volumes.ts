/** The contract's volumes over a driver's single calls: safe to repeat, within the limits, done when they are done. */
import { InfraletError } from '../base/errors.ts';
import { type Clock, until } from '../base/time.ts';
import type { Volumes } from './contract.ts';
import type { ApiClass, CloudDriver, CloudVolume } from './driver.ts';
import type { CallLimiter } from './limiter.ts';

export function limitedVolumes(
  calls: NonNullable<CloudDriver['volumes']>,
  limiters: Readonly<Record<ApiClass, CallLimiter>>,
  wait: { readonly everyMs: number; readonly clock: Clock },
): Volumes {
  const find = async (volume: string, signal: AbortSignal): Promise<CloudVolume | undefined> => {
    await limiters.describe.turn(signal);
    return await calls.find(volume, signal);
  };
  return {
    attach: async (id, volume, signal) => {
      const known = await find(volume, signal);
      if (!known) throw new InfraletError('INVALID_ARGUMENT', `there is no volume ${volume}`);
      if (!known.machines.includes(id)) {
        const [other] = known.machines;
        if (other !== undefined) {
          throw new InfraletError('INVALID_ARGUMENT', `the volume ${volume} belongs to the machine ${other} now`, {
            hint: 'detach it there first',
          });
        }
        await limiters.other.turn(signal);
        await calls.attach(id, volume, signal);
      }
      const attached = async (): Promise<true | undefined> => {
        const now = await find(volume, signal);
        if (now?.machines.includes(id)) return now.state === 'attached' ? true : undefined;
        throw new InfraletError('ABORTED', `the volume ${volume} was taken from the machine ${id} meanwhile`);
      };
      await until(attached, { ...wait, signal });
      return { serial: known.serial };
    },
    detach: async (id, volume, signal) => {
      const has = async (): Promise<boolean> => (await find(volume, signal))?.machines.includes(id) ?? false;
      if (!(await has())) return;
      await limiters.other.turn(signal);
      await calls.detach(id, volume, signal);
      await until(async () => ((await has()) ? undefined : true), { ...wait, signal });
    },
  };
}
