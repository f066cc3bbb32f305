/** Waiting, always under a signal. No other file of the code base calls setTimeout to wait. */
import { setTimeout as delay } from 'node:timers/promises';
import { InfraletError } from './errors.ts';

/** Source of time; tests pass their own. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Resolves after `ms`; rejects with AbortError when the signal fires. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  sleep: async (ms, signal) => {
    await delay(ms, undefined, { signal });
  },
};

/** CRI timestamps are nanoseconds since the epoch, as decimal strings on the wire. */
export function nanos(ms: number): string {
  return (BigInt(Math.round(ms * 1000)) * 1000n).toString();
}

/** Milliseconds since `at`; infinite when the clock was set back since then, so that what is kept for a while counts as old. */
export function elapsed(clock: Pick<Clock, 'now'>, at: number): number {
  const ms = clock.now() - at;
  return ms < 0 ? Number.POSITIVE_INFINITY : ms;
}

/** A signal that fires with DEADLINE_EXCEEDED after `ms`, or with `parent`. `what` completes "… took longer than N ms". */
export function withTimeout(
  parent: AbortSignal,
  ms: number,
  what: string,
  clock: Clock = systemClock,
): AbortSignal & Disposable {
  const controller = new AbortController();
  const over = new AbortController();
  clock.sleep(ms, over.signal).then(
    () => controller.abort(new InfraletError('DEADLINE_EXCEEDED', `${what} took longer than ${ms} ms`)),
    () => undefined,
  );
  const onParent = (): void => controller.abort(parent.reason);
  if (parent.aborted) onParent();
  else parent.addEventListener('abort', onParent, { once: true });
  return Object.assign(controller.signal, {
    [Symbol.dispose]: () => {
      over.abort();
      parent.removeEventListener('abort', onParent);
    },
  });
}

/** Polls `probe` until it returns something other than undefined. */
export async function until<T>(
  probe: () => Promise<T | undefined> | T | undefined,
  options: { readonly everyMs: number; readonly clock?: Clock; readonly signal: AbortSignal },
): Promise<T> {
  const clock = options.clock ?? systemClock;
  for (;;) {
    options.signal.throwIfAborted();
    const found = await probe();
    if (found !== undefined) return found;
    await clock.sleep(options.everyMs, options.signal);
  }
}
