/**
 * Prices. EC2's own API tells those of the spot market only; on-demand prices come from the configuration, else they are
 * estimated from the size, which is good enough to rank types of one kind and says so (`estimated`).
 */
import type { MachineType } from '../../src/cloud/kit.ts';

/** US dollars per hour: a plane through the public prices of the general, compute and memory families (Linux, 2025). */
const PER_CPU = 0.037;
const PER_GIB = 0.003;
const PER_GPU = 0.6;
/** What spot costs of the on-demand price where its history is empty: the usual discount is larger. */
const SPOT_SHARE = 0.5;

export function onDemandPrice(
  type: MachineType,
  prices: Readonly<Record<string, number>>,
): { readonly pricePerHour: number; readonly estimated: boolean } {
  const known = prices[type.name];
  if (known !== undefined) return { pricePerHour: known, estimated: false };
  const size = (type.cpuMillis / 1000) * PER_CPU + (type.memoryBytes / 2 ** 30) * PER_GIB;
  return { pricePerHour: round(size + (type.gpus?.count ?? 0) * PER_GPU), estimated: true };
}

export function spotPrice(
  onDemand: number,
  listed: number | undefined,
): { readonly pricePerHour: number; readonly estimated: boolean } {
  return listed === undefined
    ? { pricePerHour: round(onDemand * SPOT_SHARE), estimated: true }
    : { pricePerHour: listed, estimated: false };
}

/** To a hundredth of a cent. */
function round(price: number): number {
  return Math.round(price * 10_000) / 10_000;
}
