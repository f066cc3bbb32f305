/** Waiting for a file or a directory to change. */
import { type FSWatcher, watch } from 'node:fs';
import { systemClock } from '../base/time.ts';
import { LIMITS } from './options.ts';

/** Counts changes below a path, so that none between a look and a wait is missed; ticks now and then in any case. */
export class Changes implements Disposable {
  readonly #watcher: FSWatcher;
  #wake = new AbortController();
  count = 0;

  constructor(path: string) {
    this.#watcher = watch(path, { persistent: false }, () => {
      this.count += 1;
      this.#wake.abort();
    });
    this.#watcher.on('error', () => undefined);
  }

  /** Resolves when something changed since `seen`, or after a tick. */
  async after(seen: number, signal: AbortSignal): Promise<void> {
    if (this.count !== seen) return;
    this.#wake = new AbortController();
    await systemClock
      .sleep(LIMITS.readTickMs, AbortSignal.any([signal, this.#wake.signal]))
      .catch(() => signal.throwIfAborted());
  }

  [Symbol.dispose](): void {
    this.#watcher.close();
  }
}
