/** The section `providers.aws` of the configuration. */
import { z } from 'zod';
import { bytes, duration, parseSection } from '../../src/cloud/contract.ts';
import { fleetSettings, podAddressSetting } from '../../src/cloud/kit.ts';

/**
 * A tenth below what EC2 publishes for an account and region: RunInstances 5 calls and 2 more per second (and 1,000
 * machines, 2 more per second), TerminateInstances 100 and 5, reads 100 and 20, other changes 50 and 5.
 */
const LIMITS = {
  launch: [4, 1.8],
  launchResources: [900, 1.8],
  describe: [90, 18],
  terminate: [90, 4.5],
  other: [45, 4.5],
} as const;

const schema = z.strictObject({
  region: z.string().min(1).describe('AWS region, such as eu-central-1.'),
  endpoint: z
    .url()
    .optional()
    .describe('Address of the EC2 API, for VPC endpoints and test clouds. Default: that of the region.'),
  imageId: z.string().regex(/^ami-/).describe('AMI made by `infralet image publish aws`.'),
  subnets: z
    .array(z.string().regex(/^subnet-/))
    .min(1)
    .describe('Subnets for machines, each in a zone of its own; a pod gets the zone where its machine is cheapest.'),
  securityGroups: z
    .array(z.string().regex(/^sg-/))
    .min(1)
    .describe('Security groups of machines: TCP 7443 and the pod network in from the node, nothing else in.'),
  podAddress: podAddressSetting("a second private address of its machine's interface"),
  instanceProfile: z
    .string()
    .optional()
    .describe('Name or ARN of an instance profile. Default: none, since no pod should have what a machine has.'),
  instanceTypes: z
    .array(z.string().min(1))
    .min(1)
    .default([
      't3.*',
      't3a.*',
      'm7i.*',
      'm7a.*',
      'c7i.*',
      'c7a.*',
      'r7i.*',
      'r7a.*',
      'm6i.*',
      'c6i.*',
      'r6i.*',
      'g4dn.*',
      'g5.*',
    ])
    .describe('Instance types that may be bought; `*` stands for anything.'),
  prices: z
    .record(z.string(), z.number().positive())
    .default({})
    .describe(
      'On-demand prices in US dollars per hour by type. Types without one are ranked by an estimate from their size.',
    ),
  launchTemplate: z
    .string()
    .regex(/^lt-/)
    .optional()
    .describe('Launch template whose settings apply where Infralet gives none (key pair, placement, monitoring).'),
  volumeType: z.enum(['gp3', 'gp2', 'io2']).default('gp3').describe('Kind of the disk.'),
  encrypted: z.boolean().default(true).describe('Whether the disk is encrypted; hibernation needs it.'),
  hibernate: z
    .boolean()
    .default(false)
    .describe('Whether machines of a pool are hibernated rather than stopped; their memory must fit their disk.'),
  imageSize: bytes('1Gi').describe('What the guest image takes of the disk, beside the scratch space of the pod.'),
  requestTimeout: duration('30s').describe('One call of the API; a launch of many machines takes some seconds.'),
  ...fleetSettings(LIMITS),
});

export type AwsConfig = Readonly<z.output<typeof schema>>;

export function parseConfig(section: unknown): AwsConfig {
  return parseSection('aws', schema, section);
}
