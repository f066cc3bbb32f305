/** What can be bought: an instance type in a zone on a market, and what a pod demands of it. */

export const MARKETS = ['on-demand', 'spot'] as const;
export type Market = (typeof MARKETS)[number];

export const ARCHITECTURES = ['amd64', 'arm64'] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

export interface MachineType {
  readonly name: string;
  readonly architecture: Architecture;
  readonly cpuMillis: number;
  /** As the cloud lists it; the guest sees less, see `usableMemory`. */
  readonly memoryBytes: number;
  readonly gpus: { readonly model: string; readonly count: number } | undefined;
}

export interface Offer {
  readonly type: MachineType;
  readonly zone: string;
  readonly market: Market;
  /** US dollars per hour. */
  readonly pricePerHour: number;
  /** True when the price is reckoned from the size because no price list names the type. */
  readonly estimated: boolean;
}

/** What a pod demands beside its size; absent means that anything will do. */
export interface Placement {
  readonly architecture?: Architecture | undefined;
  readonly gpu?: { readonly count: number; readonly model?: string | undefined } | undefined;
  /** Names of types, `*` stands for anything; one of them must match. */
  readonly types?: readonly string[] | undefined;
  readonly zones?: readonly string[] | undefined;
  /** `spot-preferred`: spot while there is any, else on demand. @default on-demand */
  readonly market?: Market | 'spot-preferred' | undefined;
}

/** Names an offer where one is remembered as unavailable, and in logs. */
export function offerKey(offer: Offer): string {
  return `${offer.type.name}/${offer.zone}/${offer.market}`;
}
