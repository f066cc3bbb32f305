/** EC2's token buckets as they are published; a call that finds its bucket empty is throttled. */

export interface BucketSize {
  readonly burst: number;
  readonly perSecond: number;
}

/** Calls by their class; RunInstances has a second one that counts machines. */
export const PUBLISHED = {
  run: { burst: 5, perSecond: 2 },
  runResources: { burst: 1000, perSecond: 2 },
  terminate: { burst: 100, perSecond: 5 },
  read: { burst: 100, perSecond: 20 },
  change: { burst: 50, perSecond: 5 },
} as const satisfies Readonly<Record<string, BucketSize>>;

export type BucketName = keyof typeof PUBLISHED;

export class TokenBuckets {
  readonly #levels = new Map<BucketName, { tokens: number; at: number }>();
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** True when there was enough for `count`. */
  take(name: BucketName, count = 1): boolean {
    const { burst, perSecond } = PUBLISHED[name];
    const level = this.#levels.get(name) ?? { tokens: burst, at: this.#now() };
    const now = this.#now();
    level.tokens = Math.min(burst, level.tokens + ((now - level.at) / 1000) * perSecond);
    level.at = now;
    this.#levels.set(name, level);
    if (level.tokens < count) return false;
    level.tokens -= count;
    return true;
  }
}
