/**
 * Sees to it that there is a template for the machines that are asked for: the usual size from the start of the daemon,
 * others from their first use on. Works in the background; no pod waits for it, and none fails with it.
 */
import { backoffMs } from '../base/backoff.ts';
import { errorMessage } from '../base/errors.ts';
import { abortable } from '../base/keyed-lock.ts';
import type { Clock } from '../base/time.ts';
import type { Cloning, MachineShape } from '../cloud/contract.ts';
import type { Config } from '../config/schema.ts';
import type { Logger } from '../telemetry/log.ts';

export interface TemplateKeeperOptions {
  readonly cloning: Cloning;
  readonly config: Config['reconciler'];
  /** The configuration's isolation.templateWait, milliseconds. */
  readonly waitMs: number;
  readonly clock: Clock;
  readonly log: Logger;
}

export class TemplateKeeper implements AsyncDisposable {
  readonly #options: TemplateKeeperOptions;
  readonly #stop = new AbortController();
  /** One worker per shape, until its template is there; `first` ends with its first attempt. */
  readonly #working = new Map<string, { readonly done: Promise<void>; readonly first: Promise<void> }>();

  constructor(options: TemplateKeeperOptions) {
    this.#options = options;
  }

  /** Asks for a template; returns at once. Asking again while it is made, or waits for its next try, changes nothing. */
  want(shape: MachineShape): void {
    const key = keyOf(shape);
    if (this.#stop.signal.aborted || this.#working.has(key)) return;
    const first = Promise.withResolvers<void>();
    const done = this.#make(shape, first.resolve).finally(() => {
      first.resolve();
      this.#working.delete(key);
    });
    this.#working.set(key, { done, first: first.promise });
  }

  /**
   * Waits for the first attempt at a template that is wanted, for `templateWait` at most, or for its end where nobody waits
   * in turn (`patient`); says nothing of its outcome.
   */
  async settled(shape: MachineShape, patient: boolean, signal: AbortSignal): Promise<void> {
    const work = this.#working.get(keyOf(shape));
    const { clock, waitMs } = this.#options;
    if (work && patient) return await abortable(work.first, signal);
    if (!work || waitMs === 0) return;
    const enough = new AbortController();
    try {
      await Promise.race([work.first, clock.sleep(waitMs, AbortSignal.any([signal, enough.signal]))]);
    } finally {
      enough.abort();
    }
  }

  async #make(shape: MachineShape, tried: () => void): Promise<void> {
    const { cloning, config, clock, log } = this.#options;
    const pauses = { initialMs: config.retryInitial, maxMs: config.retryMax, factor: 2, jitter: 0.2 };
    for (let failures = 1; !this.#stop.signal.aborted; failures += 1) {
      try {
        await cloning.prepare(shape, this.#stop.signal);
        return;
      } catch (error) {
        tried();
        if (this.#stop.signal.aborted) return;
        const pauseMs = backoffMs(pauses, failures);
        log.warn('no template yet; machines boot cold', { reason: errorMessage(error), pauseMs, failures });
        await clock.sleep(pauseMs, this.#stop.signal).catch(() => undefined);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all([...this.#working.values()].map(({ done }) => done));
  }
}

function keyOf(shape: MachineShape): string {
  return JSON.stringify([shape.cpuMillis, shape.memoryBytes, shape.diskBytes]);
}
