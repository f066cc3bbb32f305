/** Signals of the serving process: the first one asks for an orderly stop, the second ends it at once. */
import { constants } from 'node:os';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/** One Ctrl-C may arrive several times: from the terminal, from npm and from the bootstrap. */
const SAME_MS = 500;

export interface Shutdown extends Disposable {
  /** Fires with the first signal. */
  readonly signal: AbortSignal;
}

/** @param onFirst called once, before the signal fires, to tell the user what happens. */
export function listenForShutdown(
  onFirst: (name: NodeJS.Signals) => void,
  target: Pick<NodeJS.Process, 'on' | 'off' | 'exit'> = process,
  now: () => number = () => performance.now(),
): Shutdown {
  const controller = new AbortController();
  let firstAt: number | undefined;
  const onSignal = (name: NodeJS.Signals): void => {
    if (firstAt === undefined) {
      firstAt = now();
      onFirst(name);
      controller.abort();
    } else if (now() - firstAt > SAME_MS) {
      target.exit(128 + constants.signals[name]);
    }
  };
  for (const name of SIGNALS) target.on(name, onSignal);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      for (const name of SIGNALS) target.off(name, onSignal);
    },
  };
}
