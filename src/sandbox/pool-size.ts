/** How many machines a pool should hold. Pure. */

export interface PoolDemand {
  /** Pods that came within the window and could have had a machine of the pool. */
  readonly arrivals: number;
  readonly windowMs: number;
  /** Time from the decision to have a machine until it waits. */
  readonly refillMs: number;
}

/** The most that the pool's ceilings allow; Infinity for one that is not set. */
export interface PoolCeilings {
  readonly memory: number;
  readonly cost: number;
}

export interface PoolTarget {
  readonly size: number;
  /** What the pool would be larger without. */
  readonly limitedBy: 'memory' | 'cost' | undefined;
}

export type PoolSize = number | { readonly min: number; readonly max: number };

/**
 * A fixed size, or as many as arrive, at the rate of the window, while one machine is made: so each that is taken is
 * replaced before its successor is. A pool that was asked at all holds one at least, however slowly pods come.
 */
export function poolTarget(size: PoolSize, demand: PoolDemand, ceilings: PoolCeilings): PoolTarget {
  const { arrivals, windowMs, refillMs } = demand;
  const wanted =
    typeof size === 'number'
      ? size
      : Math.min(size.max, Math.max(size.min, Math.ceil((arrivals * refillMs) / windowMs)));
  const memory = Math.max(0, Math.floor(ceilings.memory));
  const cost = Math.max(0, Math.floor(ceilings.cost));
  if (wanted <= Math.min(memory, cost)) return { size: wanted, limitedBy: undefined };
  return memory <= cost ? { size: memory, limitedBy: 'memory' } : { size: cost, limitedBy: 'cost' };
}
