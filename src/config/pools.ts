/** The section `pools`: machines that are up and connected before any pod asks for one. */
import { z } from 'zod';
import { bytes, duration, optionalBytes } from './units.ts';

const adaptive = z.strictObject({
  min: z.int().min(0).max(1000).default(0).describe('Machines kept although nobody asks for any.'),
  max: z.int().min(1).max(1000).default(10).describe('Most machines kept, however many pods arrive.'),
  window: duration('5m').describe(
    'Time over which arrivals are counted: the pool holds what arrives at that rate while one machine is made.',
  ),
});

const pool = z.strictObject({
  size: z
    .union([z.int().min(0).max(1000), adaptive])
    .default(1)
    .describe('Machines kept waiting: a number, or as many as pods that arrive (adaptive).'),
  runtimeHandlers: z
    .array(z.string())
    .min(1)
    .optional()
    .describe(
      'Runtime handlers whose pods may have these machines. Default: all that have no profile. Those named must have the same one.',
    ),
  cpuMillis: z
    .int()
    .min(100)
    .optional()
    .describe('Largest pod, thousandths of a CPU. Default: machine.defaultCpuMillis.'),
  memory: optionalBytes().describe('Largest pod, memory without the overhead. Default: machine.defaultMemory.'),
  idle: z
    .enum(['running', 'suspended'])
    .default('running')
    .describe(
      'How machines wait. suspended: they cost little and take longer to come back; only with providers that can do it.',
    ),
  rehearse: z
    .boolean()
    .default(false)
    .describe(
      "Whether a waiting machine runs a container of nobody's once, so that a pod's first one finds all warm. Costs each emulated machine some seconds of processor time and 130 MiB, and pays only with providers.qemu.translationCacheClone of 256Mi or more.",
    ),
  maxMemory: bytes('8Gi').describe(
    'Ceiling for the memory of all waiting machines of this pool, each counted as if it used all that it was given.',
  ),
  maxHourlyCost: z
    .number()
    .positive()
    .optional()
    .describe("Ceiling for what all waiting machines cost per hour, in the provider's currency. Default: none."),
});

export const pools = z
  .record(
    z
      .string()
      .regex(/^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/, 'names have lower-case letters, digits and hyphens, 40 at most'),
    pool,
  )
  .default({});
