/**
 * Keeps calls of one class below what the cloud allows. Two token buckets as EC2 has them: one counts calls, the other the
 * machines that they are about. Where the cloud throttles nevertheless (another program spends from the same account), the
 * rate is halved and then raised again slowly.
 */
import PQueue from 'p-queue';
import type { Clock } from '../base/time.ts';

export interface BucketSize {
  /** Calls that can be made at once. */
  readonly burst: number;
  /** Calls per second in the long run. */
  readonly perSecond: number;
}

/** The rate never falls below this share of the configured one: a pod would wait for ever. */
const LEAST_SHARE = 1 / 16;
/** A rate that was halved is raised by this share of the configured one per quiet second. */
const RAISE_PER_SECOND = 0.02;

export class CallLimiter {
  readonly #clock: Clock;
  readonly #queue: PQueue;
  readonly #calls: Bucket;
  readonly #resources: Bucket | undefined;
  #throttles = 0;

  constructor(options: {
    readonly calls: BucketSize;
    /** Counts what calls are about, for clouds that have such a bucket. */
    readonly resources?: BucketSize;
    readonly clock: Clock;
  }) {
    this.#clock = options.clock;
    // One at a time at the gate, in order; the calls themselves run side by side.
    this.#queue = new PQueue({ concurrency: 1 });
    this.#calls = new Bucket(options.calls, options.clock);
    this.#resources = options.resources && new Bucket(options.resources, options.clock);
  }

  /** Calls that wait for their turn. */
  get waiting(): number {
    return this.#queue.size + this.#queue.pending;
  }

  /** How often the cloud has throttled so far. */
  get throttles(): number {
    return this.#throttles;
  }

  /** Resolves when a call about `count` resources may be made. Lower `priority` waits longer; 0 is usual. */
  async turn(signal: AbortSignal, count = 1, priority = 0): Promise<void> {
    await this.#queue.add(
      async () => {
        await this.#take(this.#calls, 1, signal);
        if (this.#resources) await this.#take(this.#resources, count, signal);
      },
      { signal, priority },
    );
  }

  /** The cloud said "too often": half as fast from now on, and nothing until the bucket has filled again. */
  throttled(): void {
    this.#throttles += 1;
    this.#calls.slow();
    this.#resources?.slow();
  }

  async #take(bucket: Bucket, count: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      const pause = bucket.take(count);
      if (pause === 0) return;
      await this.#clock.sleep(pause, signal);
    }
  }
}

class Bucket {
  readonly #size: BucketSize;
  readonly #clock: Clock;
  #tokens: number;
  #at: number;
  /** Share of the configured rate that is used now. */
  #share = 1;

  constructor(size: BucketSize, clock: Clock) {
    this.#size = size;
    this.#clock = clock;
    this.#tokens = size.burst;
    this.#at = clock.now();
  }

  /** Takes `count` tokens (a call larger than the bucket takes it whole); else the milliseconds until they are there. */
  take(count: number): number {
    this.#fill();
    const wanted = Math.min(count, this.#size.burst);
    // A rounding error of the clock must not cost another wait.
    if (this.#tokens + 1e-6 >= wanted) {
      this.#tokens -= wanted;
      return 0;
    }
    return Math.max(1, Math.ceil(((wanted - this.#tokens) * 1000) / this.#rate));
  }

  slow(): void {
    this.#fill();
    this.#share = Math.max(LEAST_SHARE, this.#share / 2);
    this.#tokens = Math.min(this.#tokens, 0);
  }

  get #rate(): number {
    return this.#size.perSecond * this.#share;
  }

  #fill(): void {
    const now = this.#clock.now();
    // A clock that was set back gives nothing, one that jumped gives one full bucket at most.
    const seconds = Math.max(0, now - this.#at) / 1000;
    this.#at = now;
    this.#tokens = Math.min(this.#size.burst, this.#tokens + seconds * this.#rate);
    this.#share = Math.min(1, this.#share + seconds * RAISE_PER_SECOND);
  }
}
