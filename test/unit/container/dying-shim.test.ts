import { expect, test } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { pastDyingShim } from '../../../src/container/dying-shim.ts';
import { VirtualClock } from '../../support/cloud/virtual-clock.ts';

const closed = new InfraletError('UNKNOWN', 'failed to kill container "5e8e": ttrpc: closed: unknown');
const signal = AbortSignal.timeout(10_000);

function failing(times: number, error: Error): { readonly call: () => Promise<string>; readonly count: () => number } {
  let count = 0;
  return {
    call: async () => {
      count += 1;
      if (count <= times) throw error;
      return 'done';
    },
    count: () => count,
  };
}

test('a call that meets a dying shim is made again', async () => {
  const clock = new VirtualClock();
  const { call, count } = failing(2, closed);
  expect(await clock.run(pastDyingShim(call, clock, signal))).toBe('done');
  expect(count()).toBe(3);
});

test('not for ever, and not for other errors', async () => {
  const clock = new VirtualClock();
  await expect(clock.run(pastDyingShim(failing(99, closed).call, clock, signal))).rejects.toBe(closed);
  const other = failing(1, new InfraletError('UNKNOWN', 'device busy'));
  await expect(clock.run(pastDyingShim(other.call, clock, signal))).rejects.toThrow('device busy');
  expect(other.count()).toBe(1);
});
