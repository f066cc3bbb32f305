/** The section `providers.fake` of the configuration. */
import { z } from 'zod';
import { duration, FAULT_KINDS, parseSection } from '../../src/cloud/contract.ts';

const schema = z.strictObject({
  delay: duration('0ms').describe('Time that every call takes, to see what a slow cloud does.'),
  capacity: z.int().min(0).default(1000).describe('Machines that can be had; one more is refused as no-capacity.'),
  directPods: z.boolean().default(false).describe('Whether machines bring their pods addresses, out of 198.18.0.0/16.'),
  hourlyPrice: z.number().positive().optional().describe('Of a CPU; without it machines have no price.'),
  faults: z
    .array(
      z.strictObject({
        call: z.enum(['launch', 'describe', 'terminate', 'console', 'prepare', 'resize', 'power']),
        kind: z.enum(FAULT_KINDS),
        times: z.int().min(1).default(1),
      }),
    )
    .default([])
    .describe('Calls that fail, in order.'),
});

export type FakeConfig = Readonly<z.output<typeof schema>>;

export function parseConfig(section: unknown): FakeConfig {
  return parseSection('fake', schema, section);
}
