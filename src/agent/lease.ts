/**
 * A machine that costs money ends itself when its node is gone for good: nothing else may be left that could end it. Time is
 * monotonic, so that neither a clock that is set nor a machine that was suspended loses its lease by that.
 */

/** The longest pause that Node's timers know. */
const MAX_PAUSE_MS = 2 ** 31 - 1;

export class Lease {
  readonly #onEnd: () => void;
  #endsAt = Number.POSITIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  /** @param onEnd called once, when the lease has run out. */
  constructor(onEnd: () => void) {
    this.#onEnd = onEnd;
  }

  /** From now on for `ms`; 0: without an end. */
  renew(ms: number): void {
    this.#endsAt = ms === 0 ? Number.POSITIVE_INFINITY : performance.now() + ms;
    this.#wait();
  }

  #wait(): void {
    clearTimeout(this.#timer);
    const left = this.#endsAt - performance.now();
    if (left === Number.POSITIVE_INFINITY) return;
    if (left <= 0) this.#onEnd();
    else this.#timer = setTimeout(() => this.#wait(), Math.min(Math.ceil(left), MAX_PAUSE_MS));
  }
}
