/** Cuts off machines whose agents break the rules: the first times by their session's end, then for good. */
import type { InfraletError } from '../base/errors.ts';
import type { SandboxId } from '../base/ids.ts';
import { type Clock, elapsed } from '../base/time.ts';
import type { Config } from '../config/schema.ts';
import type { Logger } from '../telemetry/log.ts';

export interface StrikesOptions {
  readonly config: Pick<Config['guest'], 'strikes' | 'strikeWindow'>;
  /** Ends the sandbox with the reason. */
  readonly fail: (id: SandboxId, reason: string) => void;
  /** Keeps what has happened for `infralet why`. */
  readonly note: (id: SandboxId, text: string) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

/** A guest's words in a reason; it may have written all of them. */
const MAX_WORDS = 300;

export class Strikes {
  readonly #options: StrikesOptions;
  /** When rules were broken, by sandbox; no more than count. */
  readonly #breaches = new Map<SandboxId, readonly number[]>();

  constructor(options: StrikesOptions) {
    this.#options = options;
  }

  strike(id: SandboxId, error: InfraletError): void {
    const { config, clock, fail, note, log } = this.#options;
    const before = (this.#breaches.get(id) ?? []).filter((at) => elapsed(clock, at) < config.strikeWindow);
    if (before.length >= config.strikes) return;
    const breaches = [...before, clock.now()];
    this.#breaches.set(id, breaches);
    const what = error.message.slice(0, MAX_WORDS);
    note(id, `breach ${breaches.length} of ${config.strikes} of the rules: ${what}`);
    log.warn('a machine breaks the rules', { sandboxId: id, reason: what, breach: breaches.length });
    if (breaches.length < config.strikes) return;
    fail(id, `cut off: its machine broke the rules ${config.strikes} times, the last time so: ${what}`);
  }

  forget(id: SandboxId): void {
    this.#breaches.delete(id);
  }
}
