/**
 * The calls in progress of one server, and how they end.
 *
 * States: open → draining (new calls are refused with UNAVAILABLE) → cut (what is left sees its signal fire).
 */
import { InfraletError, isAbortError } from '../base/errors.ts';
import { abortable } from '../base/keyed-lock.ts';
import type { Clock } from '../base/time.ts';

export class CallTracker {
  readonly #unary = new Set<AbortController>();
  readonly #streams = new Set<AbortController>();
  #draining = false;
  #idle: PromiseWithResolvers<void> | undefined;

  /** Calls in progress, streams included. */
  get size(): number {
    return this.#unary.size + this.#streams.size;
  }

  /** Begins a call: the controller ends it, disposing of the ticket marks its end. Throws UNAVAILABLE when draining. */
  enter(kind: 'unary' | 'stream', controller: AbortController): Disposable {
    if (this.#draining) throw shuttingDown();
    const set = kind === 'unary' ? this.#unary : this.#streams;
    set.add(controller);
    return {
      [Symbol.dispose]: () => {
        set.delete(controller);
        if (this.size === 0) this.#idle?.resolve();
      },
    };
  }

  /** Refuses new calls, ends streams, gives unary calls `graceMs`, then cuts them. Returns how many were cut. */
  async drain(graceMs: number, clock: Clock): Promise<number> {
    this.#draining = true;
    for (const controller of this.#streams) controller.abort(shuttingDown());
    if (this.size === 0) return 0;
    this.#idle ??= Promise.withResolvers<void>();
    const idle = new AbortController();
    const grace = clock.sleep(graceMs, idle.signal).catch((error: unknown) => {
      if (!isAbortError(error)) throw error;
    });
    await Promise.race([this.#idle.promise, grace]);
    idle.abort();
    await grace;
    const left = [...this.#unary, ...this.#streams];
    for (const controller of left) controller.abort(shuttingDown());
    return left.length;
  }
}

function shuttingDown(): InfraletError {
  return new InfraletError('UNAVAILABLE', 'the daemon is shutting down', { hint: 'try again when it is back' });
}

/** Waits for `work`, but no longer than the call lives; work that ignores its signal must not hold up a shutdown. */
export async function withinCall<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  try {
    return await abortable(work, signal);
  } finally {
    // Whoever waited is gone: a later failure has nobody to go to, and must not end the process.
    if (signal.aborted) work.catch(() => undefined);
  }
}
