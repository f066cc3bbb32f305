/** Offers that a cloud could not deliver a moment ago, so that the next pod does not ask for them again. */
import { type Clock, elapsed } from '../base/time.ts';
import { type Offer, offerKey } from './offers.ts';

export class UnavailableOffers {
  readonly #clock: Clock;
  readonly #ttlMs: number;
  readonly #until = new Map<string, { readonly at: number; readonly reason: string }>();

  /** @param ttlMs how long an offer is remembered. */
  constructor(ttlMs: number, clock: Clock) {
    this.#ttlMs = ttlMs;
    this.#clock = clock;
  }

  /** `zone`: nothing of this market is to be had in the zone; `market`: nowhere in this account. */
  mark(offer: Offer, scope: 'offer' | 'zone' | 'market', reason: string): void {
    this.#until.set(key(offer, scope), { at: this.#clock.now(), reason });
  }

  /** The reason why it is not to be had, or undefined. */
  reason(offer: Offer): string | undefined {
    for (const scope of ['offer', 'zone', 'market'] as const) {
      const name = key(offer, scope);
      const entry = this.#until.get(name);
      if (!entry) continue;
      if (elapsed(this.#clock, entry.at) < this.#ttlMs) return entry.reason;
      this.#until.delete(name);
    }
    return undefined;
  }
}

function key(offer: Offer, scope: 'offer' | 'zone' | 'market'): string {
  if (scope === 'offer') return offerKey(offer);
  return scope === 'zone' ? `*/${offer.zone}/${offer.market}` : `*/*/${offer.market}`;
}
