/** A cloud in memory behind the driver interface: launch tokens, buckets, lag and faults by offer; for tests of the layer above. */
import type { Check, PodLink } from '../../../src/cloud/contract.ts';
import type { CloudDriver, CloudFault, CloudMachine, LaunchCall } from '../../../src/cloud/driver.ts';
import { type Offer, offerKey } from '../../../src/cloud/offers.ts';
import type { VirtualClock } from './virtual-clock.ts';

class DriverFault extends Error {
  readonly fault: CloudFault;
  constructor(fault: CloudFault) {
    super(fault.message);
    this.fault = fault;
  }
}

export class MemoryCloud {
  readonly clock: VirtualClock;
  readonly offers: Offer[];
  /** Machines left per offer; absent: no end of them. */
  readonly capacity = new Map<string, number>();
  /** Errors that the next calls end with, before or after they had their effect. */
  readonly script: {
    readonly call: 'launch' | 'list' | 'terminate';
    readonly when: 'before' | 'after';
    readonly fault: CloudFault;
  }[] = [];
  readonly calls: { readonly call: string; readonly at: number; readonly count: number }[] = [];
  readonly machines = new Map<string, CloudMachine>();
  readonly #byToken = new Map<string, { readonly call: string; readonly ids: readonly string[] }>();
  /** How long a machine is missing from lists after its launch, milliseconds. */
  lagMs = 0;
  #made = 0;

  constructor(clock: VirtualClock, offers: readonly Offer[]) {
    this.clock = clock;
    this.offers = [...offers];
  }

  #raise(call: 'launch' | 'list' | 'terminate', when: 'before' | 'after'): void {
    const index = this.script.findIndex((entry) => entry.call === call && entry.when === when);
    const [entry] = index < 0 ? [] : this.script.splice(index, 1);
    if (entry) throw new DriverFault(entry.fault);
  }

  #note(call: string, count: number): void {
    this.calls.push({ call, at: this.clock.now(), count });
  }

  count(call: string): number {
    return this.calls.filter((entry) => entry.call === call).length;
  }

  /** A connection to this cloud; closing it loses nothing. */
  driver(maxPerCall = 1000): CloudDriver {
    return {
      name: 'memory',
      maxPerCall,
      catalogue: async () => this.offers,
      launch: async (call, signal) => {
        signal.throwIfAborted();
        this.#note('launch', call.count);
        this.#raise('launch', 'before');
        const made = this.#launch(call);
        this.#raise('launch', 'after');
        return made;
      },
      list: async (tags) => {
        this.#note('list', this.machines.size);
        this.#raise('list', 'before');
        const machines = [...this.machines.values()].filter(
          (machine) =>
            machine.launchedAt + this.lagMs <= this.clock.now() &&
            Object.entries(tags).every(([key, value]) => machine.tags[key] === value),
        );
        return { machines, pages: 1 };
      },
      terminate: async (ids) => {
        this.#note('terminate', ids.length);
        this.#raise('terminate', 'before');
        const unknown = ids.find((id) => !this.machines.has(id));
        if (unknown !== undefined) throw new DriverFault({ kind: 'not-found-yet', message: `no machine ${unknown}` });
        for (const id of ids) this.end(id, 'terminated by its owner');
        this.#raise('terminate', 'after');
      },
      classify: (error) => (error instanceof DriverFault ? error.fault : { kind: 'transient', message: String(error) }),
      console: async (id) => `console of ${id}`,
      podLink: ({ address }): PodLink | undefined => (address === undefined ? undefined : { kind: 'vxlan', address }),
      doctor: async (): Promise<readonly Check[]> => [],
      [Symbol.asyncDispose]: async () => undefined,
    };
  }

  end(id: string, reason: string): void {
    const machine = this.machines.get(id);
    if (machine) this.machines.set(id, { ...machine, state: 'terminated', reason });
  }

  get alive(): readonly CloudMachine[] {
    return [...this.machines.values()].filter(({ state }) => state !== 'terminated');
  }

  #launch(call: LaunchCall): readonly CloudMachine[] {
    const before = this.#byToken.get(call.token);
    const text = JSON.stringify(call);
    if (before) {
      if (before.call !== text)
        throw new DriverFault({ kind: 'invalid', message: 'the token was used for another call' });
      return before.ids.flatMap((id) => this.machines.get(id) ?? []);
    }
    const key = offerKey(call.offer);
    const left = this.capacity.get(key) ?? Number.POSITIVE_INFINITY;
    if (left === 0) throw new DriverFault({ kind: 'no-capacity', message: `no ${key} is left` });
    const count = Math.min(left, call.count);
    this.capacity.set(key, left - count);
    const made = Array.from({ length: count }, (): CloudMachine => {
      this.#made += 1;
      return {
        // Names that do not follow the order of making.
        id: `m-${((this.#made * 2_654_435_761) % 2 ** 32).toString(16).padStart(8, '0')}`,
        tags: call.tags,
        state: 'running',
        reason: '',
        launchedAt: this.clock.now(),
        address: `10.0.${this.#made >> 8}.${this.#made & 255}`,
        type: call.offer.type.name,
        zone: call.offer.zone,
        market: call.offer.market,
      };
    });
    for (const machine of made) this.machines.set(machine.id, machine);
    this.#byToken.set(call.token, { call: text, ids: made.map(({ id }) => id) });
    return made;
  }
}
