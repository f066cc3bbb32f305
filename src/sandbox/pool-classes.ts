/** The configured pools: what their machines are like and which pods may have them. Pure. */
import { InfraletError } from '../base/errors.ts';
import type { MachineShape, Provider } from '../cloud/contract.ts';
import type { Placement } from '../cloud/offers.ts';
import type { Config } from '../config/schema.ts';
import { profilePlacement, samePlacement } from './placement.ts';
import type { PoolCeilings, PoolSize } from './pool-size.ts';
import { podShape } from './sizing.ts';

export interface PoolClass {
  readonly name: string;
  readonly shape: MachineShape;
  readonly placement: Placement;
  readonly handlers: readonly string[];
  readonly size: PoolSize;
  /** For arrivals; milliseconds. */
  readonly windowMs: number;
  readonly ceilings: PoolCeilings;
}

/** A fixed size follows no arrivals; they are counted over this time for those who look. Milliseconds. */
const FIXED_WINDOW_MS = 300_000;

/** Smallest machines first, so that a pod takes the smallest that fits. */
export function poolClasses(
  config: Config,
  provider: Pick<Provider, 'name' | 'hourlyPrice' | 'power'>,
): readonly PoolClass[] {
  return Object.entries(config.pools)
    .map(([name, pool]): PoolClass => {
      const handlers = pool.runtimeHandlers ?? config.runtimeHandlers.filter((each) => !config.profiles[each]);
      const [first = ''] = handlers;
      const disk = config.profiles[first]?.disk;
      const shape = podShape({ cpuMillis: pool.cpuMillis, memoryBytes: pool.memory, diskBytes: disk }, config.machine);
      const { size, maxMemory, maxHourlyCost } = pool;
      if (pool.idle === 'suspended' && !provider.power) {
        throw new InfraletError(
          'FAILED_PRECONDITION',
          `pools.${name}.idle: the provider ${provider.name} cannot suspend machines`,
          { hint: 'set it to "running"' },
        );
      }
      return {
        name,
        shape,
        placement: profilePlacement(first, config),
        handlers,
        size,
        windowMs: typeof size === 'number' ? FIXED_WINDOW_MS : size.window,
        ceilings: {
          memory: maxMemory / shape.memoryBytes,
          cost: maxHourlyCost === undefined ? Number.POSITIVE_INFINITY : maxHourlyCost / price(name, shape, provider),
        },
      };
    })
    .toSorted((a, b) => a.shape.memoryBytes - b.shape.memoryBytes || a.shape.cpuMillis - b.shape.cpuMillis);
}

function price(pool: string, shape: MachineShape, provider: Pick<Provider, 'name' | 'hourlyPrice'>): number {
  const known = provider.hourlyPrice?.(shape);
  if (known !== undefined && known > 0) return known;
  throw new InfraletError(
    'FAILED_PRECONDITION',
    `pools.${pool}.maxHourlyCost: the provider ${provider.name} names no price for the machines of this pool`,
    { hint: 'remove the setting; size, max and maxMemory bound the pool' },
  );
}

export function serves(
  pool: PoolClass,
  pod: { readonly shape: MachineShape; readonly placement: Placement },
  runtimeHandler: string,
): boolean {
  return (
    pool.handlers.includes(runtimeHandler) &&
    holds(pool.shape, pod.shape) &&
    samePlacement(pool.placement, pod.placement)
  );
}

/** Whether a machine that was made earlier is still one of this pool's kind. */
export function isOfClass(
  pool: PoolClass,
  made: { readonly shape: MachineShape; readonly placement: Placement },
): boolean {
  return sameShape(pool.shape, made.shape) && samePlacement(pool.placement, made.placement);
}

/** Whether a machine of the one shape offers at least the other. */
function holds(machine: MachineShape, wanted: MachineShape): boolean {
  return (
    machine.cpuMillis >= wanted.cpuMillis &&
    machine.memoryBytes >= wanted.memoryBytes &&
    machine.diskBytes >= wanted.diskBytes
  );
}

export function sameShape(a: MachineShape, b: MachineShape): boolean {
  return holds(a, b) && holds(b, a);
}
