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

/** A signal that fires with DEADLINE_EXCEEDED after `ms`, or with `parent`. `what` completes "… took longer than N ms". */
export function withTimeout(parent: AbortSignal, ms: number, what: string): AbortSignal & Disposable {
  const controller = new AbortController();
  const timer = setTimeout(() => {
    controller.abort(new InfraletError('DEADLINE_EXCEEDED', `${what} took longer than ${ms} ms`));
  }, ms);
  const onParent = (): void => controller.abort(parent.reason);
  if (parent.aborted) onParent();
  else parent.addEventListener('abort', onParent, { once: true });
  return Object.assign(controller.signal, {
    [Symbol.dispose]: () => {
      clearTimeout(timer);
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
