/** Time that passes only when nothing else is left to do, so that hours of waiting and thousands of pods take no time. */
import { setImmediate as turn } from 'node:timers/promises';
import type { Clock } from '../../../src/base/time.ts';

interface Sleeper {
  readonly at: number;
  readonly order: number;
  readonly wake: () => void;
}

/** Turns of the event loop without a new sleeper or waker after which everybody is taken to be waiting. */
const QUIET_TURNS = 5;

export class VirtualClock implements Clock {
  #now: number;
  #offset = 0;
  #order = 0;
  #activity = 0;
  readonly #sleepers = new Set<Sleeper>();
  #held = 0;

  constructor(start = Date.UTC(2026, 0, 1)) {
    this.#now = start;
  }

  now(): number {
    return this.#now + this.#offset;
  }

  /** The time of everybody else, which no jump of this clock changes. */
  get steady(): number {
    return this.#now;
  }

  /** Sets the clock, as an administrator or NTP does: who sleeps does not wake any sooner or later. */
  jump(ms: number): void {
    this.#offset += ms;
  }

  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#activity += 1;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#order += 1;
    const sleeper: Sleeper = { at: this.#now + ms, order: this.#order, wake: resolve };
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    this.#sleepers.add(sleeper);
    try {
      await promise;
    } finally {
      this.#activity += 1;
      this.#sleepers.delete(sleeper);
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Time stands still while this goes on: something real, such as a call over a socket. */
  async hold<T>(work: () => Promise<T>): Promise<T> {
    this.#held += 1;
    try {
      return await work();
    } finally {
      this.#held -= 1;
      this.#activity += 1;
    }
  }

  /** Lets time pass until the work is done; fails when everybody waits and nobody sleeps. */
  async run<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const settled = work.finally(() => {
      done = true;
    });
    settled.catch(() => undefined);
    for (;;) {
      await this.#quiet();
      if (done) return await work;
      const next = [...this.#sleepers].sort((a, b) => a.at - b.at || a.order - b.order)[0];
      if (!next) throw new Error('nobody sleeps, and the work is not done');
      this.#now = Math.max(this.#now, next.at);
      this.#sleepers.delete(next);
      next.wake();
    }
  }

  async #quiet(): Promise<void> {
    for (let quiet = 0; quiet < QUIET_TURNS; quiet += 1) {
      const before = this.#activity;
      await turn();
      if (this.#activity !== before || this.#held > 0) quiet = 0;
    }
  }
}
