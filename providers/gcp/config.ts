/** The section `providers.gcp` of the configuration. */
import { z } from 'zod';
import { bytes, duration, parseSection } from '../../src/cloud/contract.ts';
import { fleetSettings, podAddressSetting } from '../../src/cloud/kit.ts';

/** Compute Engine counts calls per project and minute, 1,500 of each kind at first; a project may share them. */
const LIMITS = {
  launch: [200, 20],
  launchResources: [200, 20],
  describe: [200, 20],
  terminate: [200, 20],
  other: [200, 20],
} as const;

const schema = z.strictObject({
  project: z.string().min(1).describe('Project that pays for the machines.'),
  zones: z
    .array(z.string().regex(/^[a-z]+-[a-z]+\d+-[a-z]$/))
    .min(1)
    .describe('Zones for machines; a pod gets the one where its machine is cheapest or to be had.'),
  endpoint: z
    .url()
    .optional()
    .describe(
      'Address of the Compute Engine API, for private endpoints and test clouds; http asks for no credentials.',
    ),
  image: z
    .string()
    .min(1)
    .describe('Image made by `infralet image publish gcp`: projects/PROJECT/global/images/NAME (or …/family/NAME).'),
  subnetwork: z
    .string()
    .min(1)
    .describe('Subnetwork of the machines: projects/PROJECT/regions/REGION/subnetworks/NAME.'),
  podAddress: podAddressSetting("an alias address of its machine's interface"),
  podRange: z
    .string()
    .optional()
    .describe(
      "The subnetwork's secondary range that pods get addresses of with `podAddress: direct`. Default: its primary.",
    ),
  networkTags: z.array(z.string()).default(['infralet']).describe('Network tags, for firewall rules.'),
  machineTypes: z
    .array(z.string().min(1))
    .default(['e2-*', 'n2-*', 'n2d-*', 'c3-*', 'g2-*'])
    .describe('Machine types that may be bought; `*` stands for anything.'),
  customTypes: z
    .array(z.enum(['e2', 'n2', 'n2d']))
    .default(['e2'])
    .describe('Series of which machines are made to measure: CPUs in pairs, memory in steps of 256 MiB.'),
  prices: z
    .record(z.string(), z.number().positive())
    .default({})
    .describe(
      'On-demand prices in US dollars per hour by type. Types without one are ranked by an estimate from their size.',
    ),
  diskType: z.string().default('pd-balanced').describe('Kind of the disk.'),
  imageSize: bytes('1Gi').describe('What the guest image takes of the disk, beside the scratch space of the pod.'),
  maxRunDuration: duration('0s').describe(
    'The cloud itself deletes a machine this long after its launch, whatever it does. 0s: never; the agent keeps a lease.',
  ),
  operationTimeout: duration('5m').describe('One operation; a zone that is sold out has taken 96 s to say so.'),
  ...fleetSettings(LIMITS),
});

const consistent = schema.refine(({ podAddress, podRange }) => podAddress === 'direct' || podRange === undefined, {
  path: ['podRange'],
  message: 'is for podAddress: direct only',
});

export type GcpConfig = Readonly<z.output<typeof schema>>;

export function parseConfig(section: unknown): GcpConfig {
  return parseSection('gcp', consistent, section);
}
