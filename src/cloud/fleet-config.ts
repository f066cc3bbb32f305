/** Settings that every cloud has; a provider's own schema spreads them and gives the defaults of its cloud. */
import { z } from 'zod';
import { bytes, duration } from './settings.ts';

const bucket = (burst: number, perSecond: number, why: string) =>
  z
    .strictObject({
      burst: z.number().min(1).default(burst).describe('Calls at once.'),
      perSecond: z.number().positive().default(perSecond).describe('Calls per second in the long run.'),
    })
    .prefault({})
    .describe(why);

export interface BucketDefaults {
  readonly launch: readonly [number, number];
  readonly launchResources: readonly [number, number];
  readonly describe: readonly [number, number];
  readonly terminate: readonly [number, number];
  readonly other: readonly [number, number];
}

/** @param buckets the cloud's published limits, some way below; [burst, per second]. */
export function fleetSettings(buckets: BucketDefaults) {
  return {
    limits: z
      .strictObject({
        launch: bucket(...buckets.launch, 'Calls that make machines.'),
        launchResources: bucket(...buckets.launchResources, 'Machines made by these calls.'),
        describe: bucket(...buckets.describe, 'Calls that list machines.'),
        terminate: bucket(...buckets.terminate, 'Calls that end machines.'),
        other: bucket(...buckets.other, 'Everything else: catalogue, console, disks, addresses.'),
      })
      .prefault({})
      .describe('Own rate limits per account and region, a tenth below the published ones; other programs share them.'),
    batchIdle: duration('35ms').describe('A launch call is made when no other pod has come for this long.'),
    batchNextOffer: duration('5ms').describe(
      'The same for pods whose first offer was not to be had: those of one call come together, and have waited already.',
    ),
    batchMax: duration('1s').describe('A launch call is made this long after its first pod at the latest.'),
    terminateIdle: duration('100ms').describe('Machines that end within this time end in one call.'),
    describeEvery: duration('1s').describe('Least time between two reads of the machine list, for all pods together.'),
    listLag: duration('2m').describe('How long a new machine may be missing from the list before it counts as gone.'),
    unavailableTtl: duration('3m').describe('An offer that was not to be had is not asked for again for this long.'),
    catalogueTtl: duration('6h').describe('Types and prices are read again after this long.'),
    launchTries: z
      .int()
      .min(1)
      .default(5)
      .describe('Repeats of one launch call whose outcome is unknown or throttled.'),
    launchOffers: z.int().min(1).default(12).describe('Offers tried for one pod before it fails.'),
    retryInitial: duration('500ms').describe('First pause before a launch call is repeated.'),
    retryMax: duration('20s').describe('Longest pause before a launch call is repeated.'),
    memoryReserve: bytes('64Mi').describe('Memory of a machine that firmware and kernel keep, so that no pod gets it.'),
    memoryReserveShare: z
      .number()
      .min(0)
      .max(0.5)
      .default(0.03)
      .describe('Share of the listed memory that the hypervisor keeps, beside memoryReserve.'),
  } as const;
}

/** @param what the cloud's own kind of address for a pod. */
export function podAddressSetting(what: string) {
  return z
    .enum(['tunnel', 'direct'])
    .default('tunnel')
    .describe(
      `tunnel: pods have addresses of the node's CNI, and all their packets pass the node. direct: a pod has ${what}, ` +
        'without CNI and past the node: faster, but there are no host ports, and no network policies and Services but those of ' +
        'the cloud.',
    );
}

const parsedShape = z.object(
  fleetSettings({ launch: [1, 1], launchResources: [1, 1], describe: [1, 1], terminate: [1, 1], other: [1, 1] }),
);
/** The compiled settings: milliseconds and bytes. */
export type FleetConfig = Readonly<z.output<typeof parsedShape>>;
