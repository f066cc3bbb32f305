/** Exponential back-off with full-range jitter around the curve; pure apart from the injected random source. */

export interface BackoffPolicy {
  readonly initialMs: number;
  readonly maxMs: number;
  /** Factor between two attempts. */
  readonly factor: number;
  /** 0.2 means ±20 %. */
  readonly jitter: number;
}

/** Delay before attempt `attempt` (1 is the first retry), in milliseconds. */
export function backoffMs(policy: BackoffPolicy, attempt: number, random: () => number = Math.random): number {
  const exponent = Math.min(Math.max(attempt - 1, 0), 64);
  const base = Math.min(policy.initialMs * policy.factor ** exponent, policy.maxMs);
  return Math.round(base * (1 + policy.jitter * (2 * random() - 1)));
}
