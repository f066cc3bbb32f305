import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { matchesGlob } from '../../../src/base/glob.ts';
import { type ChoiceInput, chooseOffers, listedMemory } from '../../../src/cloud/choice.ts';
import { ARCHITECTURES, MARKETS, type Offer, offerKey, type Placement } from '../../../src/cloud/offers.ts';

const MIB = 2 ** 20;
const names = ['m5.large', 'm5.xlarge', 'c5.large', 'g4dn.xlarge', 't3.small'];
const zones = ['a', 'b'];

const offer: fc.Arbitrary<Offer> = fc.record({
  type: fc.record({
    name: fc.constantFrom(...names),
    architecture: fc.constantFrom(...ARCHITECTURES),
    cpuMillis: fc.integer({ min: 1, max: 16 }).map((cpus) => cpus * 1000),
    memoryBytes: fc.integer({ min: 256, max: 65_536 }).map((mib) => mib * MIB),
    gpus: fc.option(fc.record({ model: fc.constantFrom('T4', 'A10G'), count: fc.integer({ min: 1, max: 4 }) }), {
      nil: undefined,
    }),
  }),
  zone: fc.constantFrom(...zones),
  market: fc.constantFrom(...MARKETS),
  pricePerHour: fc.integer({ min: 1, max: 50 }).map((cents) => cents / 100),
  estimated: fc.boolean(),
});
const placement: fc.Arbitrary<Placement> = fc.record(
  {
    architecture: fc.constantFrom(...ARCHITECTURES),
    gpu: fc.record(
      { count: fc.integer({ min: 1, max: 4 }), model: fc.constantFrom('t4', 'A*', '*') },
      { requiredKeys: ['count'] },
    ),
    types: fc.subarray(['m5.*', '*.large', 't3.small', 'z*'], { minLength: 1 }),
    zones: fc.subarray(zones, { minLength: 1 }),
    market: fc.constantFrom(...MARKETS, 'spot-preferred' as const),
  },
  { requiredKeys: [] },
);
const input = fc.record({
  shape: fc.record({
    cpuMillis: fc.integer({ min: 100, max: 12_000 }),
    memoryBytes: fc.integer({ min: 64, max: 32_768 }).map((mib) => mib * MIB),
    diskBytes: fc.constant(1),
  }),
  placement,
  offers: fc.array(offer, { maxLength: 30 }),
  reserve: fc.record({ fixed: fc.integer({ min: 0, max: 128 * MIB }), share: fc.constantFrom(0, 0.03, 0.075) }),
  gone: fc.subarray(names, { maxLength: 2 }),
});

/** What a pod needs, said anew and demand by demand. */
function demands(
  { shape, placement: wanted, reserve }: Omit<ChoiceInput, 'offers' | 'unavailable'>,
  gone: readonly string[],
) {
  const { gpu, types, market = 'on-demand' } = wanted;
  const text = (glob: string, value: string): boolean =>
    new RegExp(
      `^${glob
        .split('*')
        .map((part) => RegExp.escape(part))
        .join('.*')}$`,
      'i',
    ).test(value);
  return {
    ' is wanted': ({ market: its, type }: Offer) =>
      (market === 'spot-preferred' || its === market) &&
      (gpu?.model === undefined || text(gpu.model, type.gpus?.model ?? '')),
    'zone ': ({ zone }: Offer) => wanted.zones?.includes(zone) ?? true,
    'its type': ({ type }: Offer) => types?.some((glob) => text(glob, type.name)) ?? true,
    'the image needs': ({ type }: Offer) =>
      wanted.architecture === undefined || type.architecture === wanted.architecture,
    ' GPUs': ({ type }: Offer) => (gpu ? (type.gpus?.count ?? 0) >= gpu.count : !type.gpus || types !== undefined),
    'thousandths of a CPU': ({ type }: Offer) => type.cpuMillis >= shape.cpuMillis,
    'of memory': ({ type }: Offer) =>
      Math.floor(type.memoryBytes * (1 - reserve.share)) - reserve.fixed >= shape.memoryBytes,
    'sold out': ({ type }: Offer) => !gone.includes(type.name),
  };
}

describe('chooseOffers', () => {
  test('ranks exactly what meets every demand, and gives for each of the others a reason that is true', () => {
    fc.assert(
      fc.property(input, ({ gone, ...rest }) => {
        const unavailable = ({ type }: Offer) => (gone.includes(type.name) ? 'sold out' : undefined);
        const { ranked, rejected } = chooseOffers({ ...rest, unavailable });
        const checks = Object.entries(demands(rest, gone));
        expect(ranked.length + rejected.length).toBe(rest.offers.length);
        for (const each of ranked) for (const [, holds] of checks) expect(holds(each)).toBe(true);
        for (const { offer: each, reason } of rejected) {
          const named = checks.filter(([words]) => reason.includes(words));
          expect(named.length, reason).toBeGreaterThan(0);
          expect(
            named.some(([, holds]) => !holds(each)),
            reason,
          ).toBe(true);
        }
      }),
    );
  });

  test('the cheapest that fits comes first; spot before on-demand only where it is preferred', () => {
    fc.assert(
      fc.property(input, (rest) => {
        const { ranked } = chooseOffers({ ...rest, unavailable: () => undefined });
        const preferred = rest.placement.market === 'spot-preferred';
        for (const [index, later] of ranked.entries()) {
          const earlier = ranked[index - 1];
          if (!earlier) continue;
          if (preferred && earlier.market !== later.market) expect(earlier.market).toBe('spot');
          else expect(earlier.pricePerHour).toBeLessThanOrEqual(later.pricePerHour);
        }
      }),
    );
  });

  test('does not depend on the order of the catalogue', () => {
    const shuffled = input.chain((one) =>
      fc.tuple(fc.constant(one), fc.shuffledSubarray([...one.offers], { minLength: one.offers.length })),
    );
    fc.assert(
      fc.property(shuffled, ([rest, offers]) => {
        const keys = (from: readonly Offer[]): readonly string[] =>
          chooseOffers({ ...rest, offers: from, unavailable: () => undefined }).ranked.map(
            (each) => `${offerKey(each)} ${each.pricePerHour} ${each.type.memoryBytes}`,
          );
        expect(keys(offers)).toEqual(keys(rest.offers));
      }),
    );
  });

  test('a type that lists what listedMemory says is always large enough', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 40 }), input, (guest, { reserve, offers: [first] }) => {
        fc.pre(first !== undefined);
        const type = { ...first.type, cpuMillis: 1000, memoryBytes: listedMemory(guest, reserve), gpus: undefined };
        const { ranked } = chooseOffers({
          shape: { cpuMillis: 1000, memoryBytes: guest, diskBytes: 1 },
          placement: { market: first.market },
          offers: [{ ...first, type }],
          reserve,
          unavailable: () => undefined,
        });
        expect(ranked).toHaveLength(1);
      }),
    );
  });
});

describe('matchesGlob', () => {
  test('agrees with the regular expression that says the same', () => {
    const glob = fc.string({ unit: fc.constantFrom('a', 'b', '.', '*'), maxLength: 8 });
    const text = fc.string({ unit: fc.constantFrom('a', 'b', '.', '*'), maxLength: 10 });
    fc.assert(
      fc.property(glob, text, (pattern, value) => {
        const oracle = new RegExp(
          `^${pattern
            .split('*')
            .map((part) => RegExp.escape(part))
            .join('[^]*')}$`,
        );
        expect(matchesGlob(pattern, value)).toBe(oracle.test(value));
      }),
      { numRuns: 2000 },
    );
  });
});
