/**
 * Notices changes of files and directories of the node: inotify where the kernel grants a watch, looking again and again
 * where it does not (its number of watches is limited per user), and looking now and then in any case.
 */
import { type FSWatcher, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { errorMessage } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';
import type { Logger } from '../telemetry/log.ts';

export interface NodeWatchOptions {
  /** Milliseconds between two looks at what has no watch. */
  readonly pollMs: number;
  /** Milliseconds between two looks at everything, should the kernel have lost an event. */
  readonly recheckMs: number;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Watched {
  readonly onChange: () => void;
  watcher: FSWatcher | undefined;
  lookedAt: number;
}

export class NodeWatch implements AsyncDisposable {
  readonly #options: NodeWatchOptions;
  readonly #watched = new Set<Watched>();
  readonly #stop = new AbortController();
  readonly #loop: Promise<void>;
  #complained = false;

  constructor(options: NodeWatchOptions) {
    this.#options = options;
    this.#loop = this.#look().catch(() => undefined);
  }

  /** Calls `onChange` after changes of `path`, often more than once for one. A single file is watched in its directory. */
  add(path: string, kind: 'directory' | 'file', onChange: () => void): Disposable {
    const watched: Watched = { onChange, watcher: undefined, lookedAt: this.#options.clock.now() };
    this.#watched.add(watched);
    const directory = kind === 'directory' ? path : dirname(path);
    try {
      const watcher = watch(directory, { persistent: false }, (_event, name) => {
        if (kind === 'directory' || name === null || name === basename(path)) onChange();
      });
      watcher.on('error', (error) => this.#without(watched, path, error));
      watched.watcher = watcher;
    } catch (error) {
      this.#without(watched, path, error);
    }
    return {
      [Symbol.dispose]: () => {
        watched.watcher?.close();
        this.#watched.delete(watched);
      },
    };
  }

  #without(watched: Watched, path: string, error: unknown): void {
    watched.watcher?.close();
    watched.watcher = undefined;
    const fields = { path, reason: errorMessage(error), pollMs: this.#options.pollMs };
    if (this.#complained) this.#options.log.debug('a volume is polled', fields);
    else {
      this.#options.log.warn(
        'volumes are polled: the kernel gives no more watches (fs.inotify.max_user_watches)',
        fields,
      );
    }
    this.#complained = true;
  }

  async #look(): Promise<void> {
    const { clock, pollMs, recheckMs } = this.#options;
    for (;;) {
      await clock.sleep(pollMs, this.#stop.signal);
      const now = clock.now();
      for (const watched of this.#watched) {
        if (watched.watcher && now - watched.lookedAt < recheckMs) continue;
        watched.lookedAt = now;
        watched.onChange();
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    for (const { watcher } of this.#watched) watcher?.close();
    this.#watched.clear();
    await this.#loop;
  }
}
