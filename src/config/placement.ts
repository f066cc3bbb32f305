/** What pods get and may ask for beside their size: the sections `profiles` and `policy.annotations`. */
import { z } from 'zod';
import { optionalBytes } from './units.ts';

const gpu = z.strictObject({
  count: z.int().min(1).max(64).describe('GPUs of the machine, at least.'),
  model: z.string().min(1).optional().describe('Model as the cloud names it; `*` stands for anything. Default: any.'),
});

const profile = z.strictObject({
  market: z
    .enum(['on-demand', 'spot', 'spot-preferred'])
    .optional()
    .describe('spot-preferred: spot while there is any, else on demand. Default: on-demand.'),
  instanceTypes: z.array(z.string().min(1)).min(1).optional().describe('Types that will do; `*` stands for anything.'),
  zones: z.array(z.string().min(1)).min(1).optional().describe('Zones that will do. Default: any.'),
  gpu: gpu.optional().describe('GPUs. Default: a machine without.'),
  disk: optionalBytes().describe('Scratch disk. Default: machine.disk.'),
});

export const profiles = z
  .record(
    z
      .string()
      .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'a runtime handler has lower-case letters, digits and hyphens'),
    profile,
  )
  .default({});

const rule = z.strictObject({
  namespaces: z.array(z.string().min(1)).min(1).describe('Namespaces; `*` stands for anything.'),
  allow: z
    .array(z.string().min(1))
    .describe('Annotations that their pods may have, without the prefix `infralet.dev/`; `*` stands for anything.'),
});

/** Market, type and GPUs decide what an hour costs: a namespace has them when its administrator says so. */
const FREE = ['memory-request', 'disk-size', 'zone', 'architecture'];

export const annotationPolicy = z
  .array(rule)
  .default([{ namespaces: ['*'], allow: FREE }])
  .describe(
    'Which annotations of Infralet the pods of a namespace may have; the first entry that names the namespace decides, and ' +
      'where none does nothing is allowed. The default leaves out what decides on the price: market, instance-type, ' +
      'gpu-count and gpu-model. Profiles are not concerned.',
  );
