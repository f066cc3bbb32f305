/** Figures of pulls. */
import type { Clock } from '../base/time.ts';
import { type Meters, SECONDS } from '../telemetry/meters.ts';

interface PullFigures {
  readonly bytes: ((count: number) => void) | undefined;
  pull<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

export function measurePulls(meters: Meters | undefined, clock: Clock): PullFigures {
  if (!meters) return { bytes: undefined, pull: async (_signal, work) => await work() };
  const duration = meters.histogram(
    'infralet_image_pull_seconds',
    'Pulls by outcome: ok, failed, or aborted since nobody waited any more. Equal pulls at a time count once.',
    ['outcome'],
    SECONDS,
  );
  const bytes = meters.counter('infralet_image_pull_bytes_total', 'Bytes of blobs fetched from registries.', []);
  return {
    bytes: (count) => bytes({}, count),
    pull: async (signal, work) => {
      const began = clock.now();
      const end = (outcome: string): void => duration({ outcome }, Math.max(0, clock.now() - began) / 1000);
      try {
        const result = await work();
        end('ok');
        return result;
      } catch (error) {
        end(signal.aborted ? 'aborted' : 'failed');
        throw error;
      }
    },
  };
}
