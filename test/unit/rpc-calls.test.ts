import { describe, expect, test } from 'vitest';
import { InfraletError } from '../../src/base/errors.ts';
import type { Clock } from '../../src/base/time.ts';
import { systemClock } from '../../src/base/time.ts';
import { CallTracker, withinCall } from '../../src/rpc/calls.ts';
import { callError, toStatus } from '../../src/rpc/status.ts';

/** A clock whose sleeps end when told, or when their signal fires. */
function manualClock(): Clock & { readonly ring: () => void } {
  const waiting: (() => void)[] = [];
  return {
    now: () => 0,
    sleep: async (_ms, signal) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      waiting.push(resolve);
      signal.addEventListener('abort', () => reject(Object.assign(new Error('aborted'), { name: 'AbortError' })));
      await promise;
    },
    ring: () => {
      for (const wake of waiting) wake();
    },
  };
}

describe('drain', () => {
  test('returns at once when there is nothing to wait for', async () => {
    expect(await new CallTracker().drain(60_000, systemClock)).toBe(0);
  });

  test('waits for calls in progress and refuses new ones', async () => {
    const calls = new CallTracker();
    const ticket = calls.enter('unary', new AbortController());
    const drained = calls.drain(60_000, systemClock);
    expect(() => calls.enter('unary', new AbortController())).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }));
    expect(calls.size).toBe(1);
    ticket[Symbol.dispose]();
    expect(await drained).toBe(0);
  });

  test('cuts what is left when the time is over, and ends streams at once', async () => {
    const calls = new CallTracker();
    const clock = manualClock();
    const [slow, stream] = [new AbortController(), new AbortController()];
    calls.enter('unary', slow);
    calls.enter('stream', stream);
    const drained = calls.drain(1000, clock);
    expect(stream.signal.reason).toMatchObject({ code: 'UNAVAILABLE' });
    expect(slow.signal.aborted).toBe(false);
    clock.ring();
    expect(await drained).toBe(2);
    expect(slow.signal.reason).toMatchObject({ code: 'UNAVAILABLE' });
  });
});

describe('errors', () => {
  test('a call ends with its signal, even when its work does not', async () => {
    const controller = new AbortController();
    const ended = withinCall(Promise.withResolvers<void>().promise, controller.signal);
    controller.abort(new InfraletError('CANCELLED', 'gone'));
    await expect(ended).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  test('a number in a foreign error is no gRPC status', () => {
    const foreign = Object.assign(new Error('exited'), { code: 5 });
    expect(toStatus(callError(foreign, new AbortController().signal))).toMatchObject({ code: 13, details: 'exited' });
  });

  test('messages carry the hint, fit into a header and can be percent-encoded', () => {
    expect(toStatus(new InfraletError('NOT_FOUND', 'no pod x', { hint: 'list them' }))).toMatchObject({
      code: 5,
      details: 'no pod x; list them',
    });
    const long = toStatus(new InfraletError('INTERNAL', `begin ${'\u{1f600}'.repeat(5000)} end\ud800`)).details;
    expect(long.length).toBeLessThan(4200);
    expect(long.startsWith('begin')).toBe(true);
    expect(() => encodeURI(long)).not.toThrow();
  });
});
