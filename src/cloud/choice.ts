/**
 * Which machine to buy for a pod: a linear filter over all offers, cheapest first. Nothing is guessed from an order of types,
 * so that no fitting offer is ever skipped. Pure.
 */
import { matchesGlob } from '../base/glob.ts';
import type { MachineShape } from './contract.ts';
import { type MachineType, type Offer, offerKey, type Placement } from './offers.ts';

/** What the hypervisor and the firmware keep of a machine's listed memory. */
export interface MemoryReserve {
  /** Bytes. */
  readonly fixed: number;
  /** Share of the listed memory, 0 to 1. */
  readonly share: number;
}

export interface Choice {
  /** Offers that will do, best first. */
  readonly ranked: readonly Offer[];
  readonly rejected: readonly { readonly offer: Offer; readonly reason: string }[];
}

export interface ChoiceInput {
  readonly shape: MachineShape;
  readonly placement: Placement;
  readonly offers: readonly Offer[];
  readonly reserve: MemoryReserve;
  /** Why an offer is not to be had now; undefined when it is. */
  readonly unavailable: (offer: Offer) => string | undefined;
}

/** Bytes that a guest sees of a type's memory. */
function usableMemory(type: MachineType, reserve: MemoryReserve): number {
  return Math.floor(type.memoryBytes * (1 - reserve.share)) - reserve.fixed;
}

/** Bytes that a type must list so that a guest sees this much: the reverse of `usableMemory`. */
export function listedMemory(guestBytes: number, reserve: MemoryReserve): number {
  return Math.ceil((guestBytes + reserve.fixed + 1) / (1 - reserve.share));
}

export function chooseOffers(input: ChoiceInput): Choice {
  const ranked: Offer[] = [];
  const rejected: { offer: Offer; reason: string }[] = [];
  for (const offer of input.offers) {
    const reason = whyNot(offer, input);
    if (reason === undefined) ranked.push(offer);
    else rejected.push({ offer, reason });
  }
  const preferSpot = input.placement.market === 'spot-preferred';
  ranked.sort(
    (a, b) =>
      (preferSpot ? Number(b.market === 'spot') - Number(a.market === 'spot') : 0) ||
      a.pricePerHour - b.pricePerHour ||
      // Between equal prices the larger machine; then the name, so that the order never depends on the catalogue's.
      b.type.memoryBytes - a.type.memoryBytes ||
      (offerKey(a) < offerKey(b) ? -1 : 1),
  );
  return { ranked, rejected };
}

/** The first demand that the offer does not meet, in words; undefined when it meets all of them. */
function whyNot(offer: Offer, { shape, placement, reserve, unavailable }: ChoiceInput): string | undefined {
  const { type } = offer;
  const market = placement.market ?? 'on-demand';
  if (market !== 'spot-preferred' && offer.market !== market) return `it is ${offer.market}, ${market} is wanted`;
  if (placement.zones && !placement.zones.includes(offer.zone)) return `zone ${offer.zone} is not wanted`;
  if (placement.types && !placement.types.some((glob) => matchesGlob(glob, type.name))) return 'its type is not wanted';
  if (placement.architecture && type.architecture !== placement.architecture) {
    return `it is ${type.architecture}, the image needs ${placement.architecture}`;
  }
  const gpu = placement.gpu;
  if (gpu && (type.gpus?.count ?? 0) < gpu.count) return `it has ${type.gpus?.count ?? 0} of ${gpu.count} GPUs`;
  if (gpu?.model !== undefined && !matchesGlob(gpu.model.toLowerCase(), type.gpus?.model.toLowerCase() ?? '')) {
    return `its GPU is ${type.gpus?.model ?? 'none'}, ${gpu.model} is wanted`;
  }
  // GPUs cost so much that a pod which does not ask for one never gets it, whatever the price list says.
  if (!gpu && type.gpus && !placement.types) return 'it has GPUs that nobody asked for';
  if (type.cpuMillis < shape.cpuMillis) return `it has ${type.cpuMillis} of ${shape.cpuMillis} thousandths of a CPU`;
  const memory = usableMemory(type, reserve);
  if (memory < shape.memoryBytes)
    return `a guest sees ${mebibytes(memory)} of ${mebibytes(shape.memoryBytes)} of memory`;
  return unavailable(offer);
}

function mebibytes(bytes: number): string {
  return `${Math.floor(bytes / 2 ** 20)} MiB`;
}
