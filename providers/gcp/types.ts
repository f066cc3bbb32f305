/** Machine types and what they cost. */
import type { MachineType, Offer } from '../../src/cloud/kit.ts';

const GIB = 2 ** 30;
/** Custom machines: memory in steps, and between so much and so much per CPU. */
const MEMORY_STEP = 256 * 2 ** 20;
const MIN_PER_CPU = GIB / 2;
const MAX_PER_CPU = 8 * GIB;
const MAX_CUSTOM_CPUS = 32;

/** US dollars per hour, from the public prices of the series in Iowa (2025): a plane through CPU and memory. */
const SERIES: Readonly<Record<string, { readonly cpu: number; readonly gib: number }>> = {
  e2: { cpu: 0.0218, gib: 0.0029 },
  n2d: { cpu: 0.0275, gib: 0.0037 },
};
const OTHERS = { cpu: 0.0316, gib: 0.0042 };
const PER_GPU = 0.6;
/** Spot machines cost between a tenth and two fifths; what is asked is not told by the API. */
const SPOT_SHARE = 0.4;

export interface Prices {
  readonly prices: Readonly<Record<string, number>>;
  readonly zones: readonly string[];
}

/** A type in all zones and both markets. */
export function offersOf(type: MachineType, zones: readonly string[], prices: Prices['prices']): readonly Offer[] {
  const known = prices[type.name];
  const onDemand = known ?? estimate(type);
  return zones.flatMap((zone): Offer[] => [
    { type, zone, market: 'on-demand', pricePerHour: onDemand, estimated: known === undefined },
    { type, zone, market: 'spot', pricePerHour: round(onDemand * SPOT_SHARE), estimated: true },
  ]);
}

/** The smallest custom machine of a series that has this much. */
export function customType(
  series: string,
  need: { readonly cpuMillis: number; readonly memoryBytes: number },
): MachineType | undefined {
  const pairs = Math.max(1, Math.ceil(need.cpuMillis / 2000), Math.ceil(need.memoryBytes / MAX_PER_CPU / 2));
  const cpus = pairs * 2;
  if (cpus > MAX_CUSTOM_CPUS) return undefined;
  const memory = Math.max(Math.ceil(need.memoryBytes / MEMORY_STEP) * MEMORY_STEP, cpus * MIN_PER_CPU);
  return {
    name: `${series}-custom-${cpus}-${memory / 2 ** 20}`,
    architecture: 'amd64',
    cpuMillis: cpus * 1000,
    memoryBytes: memory,
    gpus: undefined,
  };
}

function estimate(type: MachineType): number {
  const price = SERIES[type.name.split('-')[0] ?? ''] ?? OTHERS;
  const size = (type.cpuMillis / 1000) * price.cpu + (type.memoryBytes / GIB) * price.gib;
  return round(size + (type.gpus?.count ?? 0) * PER_GPU);
}

function round(price: number): number {
  return Math.round(price * 10_000) / 10_000;
}
