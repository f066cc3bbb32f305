/** Launches of the node, bounded: so many at once, retried here while the fault is a passing one. */
import PQueue from 'p-queue';
import { backoffMs } from '../base/backoff.ts';
import { InfraletError } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';
import type { FaultKind, Instance, LaunchRequest, Provider } from '../cloud/contract.ts';
import type { Config } from '../config/schema.ts';
import type { Logger } from '../telemetry/log.ts';

/** Faults after which the same request with the same token may succeed. */
const PASSING: ReadonlySet<FaultKind> = new Set(['throttled', 'not-found-yet', 'transient']);
const MAX_TRIES = 5;

export class Launcher {
  readonly #queue: PQueue;
  readonly #provider: Provider;
  readonly #config: Config['reconciler'];
  readonly #clock: Clock;
  readonly #log: Logger;

  constructor(options: {
    readonly provider: Provider;
    readonly config: Config['reconciler'];
    readonly clock: Clock;
    readonly log: Logger;
  }) {
    this.#provider = options.provider;
    this.#config = options.config;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#queue = new PQueue({ concurrency: options.config.launchConcurrency });
  }

  async launch(request: LaunchRequest, signal: AbortSignal): Promise<Instance> {
    return await this.#queue.add(() => this.#attempt(request, signal), { signal });
  }

  async #attempt(request: LaunchRequest, signal: AbortSignal): Promise<Instance> {
    for (let attempt = 1; ; attempt += 1) {
      let error: unknown;
      try {
        const results = await this.#provider.launch([request], signal);
        const result = results.find(({ token }) => token === request.token);
        if (result?.ok) return result.instance;
        error = result?.error ?? new InfraletError('INTERNAL', 'the provider gave no answer for the launch');
      } catch (thrown) {
        signal.throwIfAborted();
        error = thrown;
      }
      const fault = this.#provider.classify(error);
      if (!PASSING.has(fault.kind) || attempt >= MAX_TRIES) {
        throw new InfraletError('FAILED_PRECONDITION', `no machine: ${fault.message} (${fault.kind})`, {
          cause: error,
        });
      }
      const pause =
        fault.retryAfterMs ??
        backoffMs(
          { initialMs: this.#config.retryInitial, maxMs: this.#config.retryMax, factor: 2, jitter: 0.2 },
          attempt,
        );
      this.#log.warn('launch failed for now', { fault: fault.kind, error, pauseMs: pause, attempt });
      await this.#clock.sleep(pause, signal);
    }
  }
}
