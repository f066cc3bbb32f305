/** A line in the log now and then while something long goes on. */
import { isAbortError } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';
import type { Logger } from '../telemetry/log.ts';

/** Milliseconds between two lines: often enough to see that it moves, rare enough for a log. */
const INTERVAL = 5000;

export function logProgress(clock: Clock, log: Logger, state: () => Readonly<Record<string, unknown>>): Disposable {
  const stop = new AbortController();
  void (async () => {
    for (;;) {
      await clock.sleep(INTERVAL, stop.signal);
      log.info('pull in progress', state());
    }
  })().catch((error: unknown) => {
    if (!isAbortError(error)) log.error('progress ended', { error });
  });
  return { [Symbol.dispose]: () => stop.abort() };
}
