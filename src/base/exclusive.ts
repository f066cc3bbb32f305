/**
 * One worker per key. `trigger` never runs two workers of one key at once; a trigger that arrives during a run causes
 * exactly one more run after it, however many there were. A worker returns the delay until it wants to run again.
 */
import { isAbortError } from './errors.ts';
import type { Clock } from './time.ts';

/** Milliseconds until the next run, or undefined to wait for a trigger. */
export type NextRun = number | undefined;

interface Slot {
  again: boolean;
  wake: AbortController;
}

export class KeyedRunner<Key extends string> implements AsyncDisposable {
  readonly #slots = new Map<Key, Slot>();
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<void>>();
  readonly #work: (key: Key, signal: AbortSignal) => Promise<NextRun>;
  readonly #onError: (key: Key, error: unknown) => NextRun;
  readonly #clock: Clock;

  constructor(options: {
    readonly clock: Clock;
    readonly work: (key: Key, signal: AbortSignal) => Promise<NextRun>;
    /** Decides on the next run when `work` throws. */
    readonly onError: (key: Key, error: unknown) => NextRun;
  }) {
    this.#clock = options.clock;
    this.#work = options.work;
    this.#onError = options.onError;
  }

  /** Asks for a run of `key` now. */
  trigger(key: Key): void {
    if (this.#stop.signal.aborted) return;
    const slot = this.#slots.get(key);
    if (slot) {
      slot.again = true;
      slot.wake.abort();
      return;
    }
    const fresh: Slot = { again: false, wake: new AbortController() };
    this.#slots.set(key, fresh);
    const loop = this.#loop(key, fresh).finally(() => this.#running.delete(loop));
    this.#running.add(loop);
  }

  /** Keys with a run in progress or scheduled. */
  get keys(): readonly Key[] {
    return [...this.#slots.keys()];
  }

  async #loop(key: Key, slot: Slot): Promise<void> {
    for (;;) {
      slot.again = false;
      let next: NextRun;
      try {
        next = await this.#work(key, this.#stop.signal);
      } catch (error) {
        if (this.#stop.signal.aborted) break;
        next = this.#onError(key, error);
      }
      if (this.#stop.signal.aborted) break;
      if (slot.again) continue;
      if (next === undefined) break;
      slot.wake = new AbortController();
      try {
        await this.#clock.sleep(next, AbortSignal.any([slot.wake.signal, this.#stop.signal]));
      } catch (error) {
        if (!isAbortError(error)) throw error;
        if (this.#stop.signal.aborted) break;
      }
    }
    this.#slots.delete(key);
  }

  /** Stops: running workers see their signal fire and are waited for. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    for (const slot of this.#slots.values()) slot.wake.abort();
    await Promise.allSettled(this.#running);
  }
}
