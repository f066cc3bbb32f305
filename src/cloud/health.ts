/** Whether the provider can make machines, for those who ask every few seconds: its own checks, made seldom. */
import { errorMessage } from '../base/errors.ts';
import { abortable } from '../base/keyed-lock.ts';
import { type Clock, elapsed } from '../base/time.ts';
import type { Provider } from './contract.ts';

export interface ProviderHealthOptions {
  readonly provider: Pick<Provider, 'doctor'>;
  /** Milliseconds for which a verdict is good. */
  readonly everyMs: number;
  readonly clock: Clock;
}

export class ProviderHealth implements AsyncDisposable {
  readonly #options: ProviderHealthOptions;
  readonly #stop = new AbortController();
  #verdict: { readonly problem: string; readonly at: number } | undefined;
  #checking: Promise<string> | undefined;

  constructor(options: ProviderHealthOptions) {
    this.#options = options;
  }

  /** What is wrong, as a sentence with the way out; '' when all is well. Waits for the first verdict only. */
  async problem(signal: AbortSignal): Promise<string> {
    const { clock, everyMs } = this.#options;
    const known = this.#verdict;
    if (known && elapsed(clock, known.at) < everyMs) return known.problem;
    this.#checking ??= this.#check().finally(() => {
      this.#checking = undefined;
    });
    return known ? known.problem : await abortable(this.#checking, signal);
  }

  async #check(): Promise<string> {
    const problem = await this.#ask();
    this.#verdict = { problem, at: this.#options.clock.now() };
    return problem;
  }

  async #ask(): Promise<string> {
    try {
      const checks = await this.#options.provider.doctor(this.#stop.signal);
      const failed = checks.filter(({ ok, blocks = true }) => !ok && blocks);
      return failed
        .map(({ name, detail, fix }) => `${name}: ${detail}${fix === undefined ? '' : ` (${fix})`}`)
        .join('; ');
    } catch (error) {
      return errorMessage(error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#checking;
  }
}
