/**
 * Launches, retried here while the fault is a passing one. A machine is cloned where
 * the provider can do that and booted where it cannot; whatever is wrong with templates, the pod gets its machine.
 */
import { backoffMs } from '../base/backoff.ts';
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';
import type { FaultKind, Instance, LaunchRequest, Provider } from '../cloud/contract.ts';
import type { Config } from '../config/schema.ts';
import type { Logger } from '../telemetry/log.ts';
import type { TemplateKeeper } from './templates.ts';

/** Faults after which the same request with the same token may succeed. */
const PASSING: ReadonlySet<FaultKind> = new Set(['throttled', 'not-found-yet', 'transient']);
const MAX_TRIES = 5;
/** Clones that may fail before the machine boots cold. */
const CLONE_TRIES = 2;

export class Launcher {
  readonly #provider: Provider;
  readonly #config: Config['reconciler'];
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #templates: TemplateKeeper | undefined;
  readonly #coldBoots = new Map<FaultKind, number>();

  constructor(options: {
    readonly provider: Provider;
    readonly config: Config['reconciler'];
    readonly clock: Clock;
    readonly log: Logger;
    /** Absent: every machine boots cold. */
    readonly templates: TemplateKeeper | undefined;
  }) {
    this.#provider = options.provider;
    this.#config = options.config;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#templates = options.templates;
  }

  /** Machines that booted because they could not be cloned, by the reason. */
  get coldBoots(): ReadonlyMap<FaultKind, number> {
    return this.#coldBoots;
  }

  /** `patient`: for nobody who waits; a template that is being built is worth any time then. */
  async launch(request: LaunchRequest, patient: boolean, signal: AbortSignal): Promise<Instance> {
    return (
      (await this.#clone(request, patient, signal)) ?? (await this.#attempt({ ...request, start: 'boot' }, signal))
    );
  }

  /** Undefined when the machine has to boot. */
  async #clone(request: LaunchRequest, patient: boolean, signal: AbortSignal): Promise<Instance | undefined> {
    if (!this.#templates) return undefined;
    for (let attempt = 1; ; attempt += 1) {
      let error: unknown;
      try {
        return await this.#once({ ...request, start: 'clone' }, signal);
      } catch (thrown) {
        signal.throwIfAborted();
        error = thrown;
      }
      const { kind, message } = this.#provider.classify(error);
      if (attempt < CLONE_TRIES) {
        request.note?.(
          kind === 'no-template' ? 'there is no template of this size yet' : `a clone failed: ${message} (${kind})`,
        );
        if (kind === 'no-template') {
          this.#templates.want(request.shape);
          await this.#templates.settled(request.shape, patient, signal);
        } else {
          this.#log.warn('a clone failed', { launch: request.token, fault: kind, reason: errorMessage(error) });
        }
        continue;
      }
      this.#coldBoots.set(kind, (this.#coldBoots.get(kind) ?? 0) + 1);
      request.note?.(`the machine boots cold: ${message} (${kind})`);
      this.#log.warn('a machine boots cold', { launch: request.token, fault: kind, reason: message });
      return undefined;
    }
  }

  async #once(request: LaunchRequest, signal: AbortSignal): Promise<Instance> {
    const results = await this.#provider.launch([request], signal);
    const result = results.find(({ token }) => token === request.token);
    if (result?.ok) return result.instance;
    if (!result) throw new InfraletError('INTERNAL', 'the provider gave no answer for the launch');
    // The provider's own error, whatever it is: `classify` knows it again.
    return await Promise.reject(result.error);
  }

  async #attempt(request: LaunchRequest, signal: AbortSignal): Promise<Instance> {
    for (let attempt = 1; ; attempt += 1) {
      let error: unknown;
      try {
        return await this.#once(request, signal);
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
      request.note?.(
        `launch ${attempt} failed for now, the next in ${Math.round(pause)} ms: ${fault.message} (${fault.kind})`,
      );
      this.#log.warn('launch failed for now', { fault: fault.kind, error, pauseMs: pause, attempt });
      await this.#clock.sleep(pause, signal);
    }
  }
}
