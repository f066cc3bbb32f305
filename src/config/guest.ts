/** The section `guest`: how much of a machine's misconduct its node bears with. */
import { z } from 'zod';
import { bytes, duration } from './units.ts';

export const guest = z.strictObject({
  messages: z
    .int()
    .min(10)
    .default(500)
    .describe(
      'Events, samples and connections that one machine may announce, per second in the long run; each 4 KiB count as one. ' +
        'A busy pod has some ten.',
    ),
  burst: z
    .int()
    .min(100)
    .default(10_000)
    .describe('The same at once: a pod of a hundred containers that all end together, many times over.'),
  maxAnswer: bytes('1Mi').describe(
    "Largest answer of a machine's containerd, but for the output of an exec: some hundred containers with all their " +
      'labels. What it becomes in memory is a hundred times as much at worst.',
  ),
  strikes: z
    .int()
    .min(1)
    .default(3)
    .describe(
      'A machine that has broken the rules so often within `strikeWindow` is ended; its pod fails with the reason.',
    ),
  strikeWindow: duration('10m').describe('How long a breach is held against a machine.'),
});
