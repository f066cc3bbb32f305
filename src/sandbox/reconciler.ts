/**
 * Makes what exists equal to what is wanted, one worker per sandbox: plan, run the steps side by side, plan again.
 * A step is journalled before and after; a failed one backs off for its own sandbox only.
 */
import { backoffMs } from '../base/backoff.ts';
import { type ErrorCode, errorMessage, InfraletError } from '../base/errors.ts';
import { KeyedRunner, type NextRun } from '../base/exclusive.ts';
import type { SandboxId } from '../base/ids.ts';
import type { Clock } from '../base/time.ts';
import type { Config } from '../config/schema.ts';
import type { Journal } from '../state/journal.ts';
import type { Logger } from '../telemetry/log.ts';
import { isBuilding, plan, type StepKind } from './plan.ts';
import type { SandboxRecord } from './record.ts';
import { type StepDeps, stepExecutors } from './steps.ts';

/** Steps whose outcome is written to the journal's step list; the others change nothing outside. */
const SILENT: ReadonlySet<StepKind> = new Set(['ready', 'settle', 'forget']);

/** Codes with which agent.connect says that there is no way back to a machine. */
const GONE: ReadonlySet<ErrorCode> = new Set(['ABORTED', 'PERMISSION_DENIED', 'DEADLINE_EXCEEDED']);

/** Told of a step as it begins, with the record as it is then; what it returns is told of the end. */
export type ObserveStep = (
  step: StepKind,
  record: SandboxRecord,
) => (
  outcome: 'done' | 'failed' | 'interrupted',
  facts: Readonly<Record<string, string | number>>,
  error?: InfraletError,
) => void;

const INTERRUPTED = new InfraletError('ABORTED', 'the sandbox is no longer wanted');

/** States from which a sandbox can fail. */
const CAN_FAIL = ['planned', 'requested', 'running', 'connected', 'ready', 'stopping'] as const;

export class Reconciler implements AsyncDisposable {
  readonly #runner: KeyedRunner<SandboxId>;
  readonly #executors: ReturnType<typeof stepExecutors>;
  readonly #failures = new Map<SandboxId, number>();
  /** Ends the steps of a sandbox that are under way. */
  readonly #inProgress = new Map<SandboxId, AbortController>();
  readonly #deps: StepDeps;
  readonly #journal: Journal;
  readonly #observe: ObserveStep | undefined;
  readonly #config: Config;
  readonly #clock: Clock;
  readonly #log: Logger;

  constructor(options: {
    readonly deps: StepDeps;
    readonly journal: Journal;
    readonly observe?: ObserveStep | undefined;
  }) {
    this.#deps = options.deps;
    this.#journal = options.journal;
    this.#observe = options.observe;
    this.#config = options.deps.config;
    this.#clock = options.deps.clock;
    this.#log = options.deps.log.child({ component: 'reconciler' });
    this.#executors = stepExecutors(options.deps);
    this.#runner = new KeyedRunner({
      clock: this.#clock,
      work: (id, signal) => this.#reconcile(id, signal),
      onError: (id, error) => this.#failed(id, error),
    });
  }

  trigger(id: SandboxId): void {
    this.#runner.trigger(id);
  }

  /** Like `trigger`, and ends the steps in progress: they serve a wish that is no longer there. */
  interrupt(id: SandboxId): void {
    this.#inProgress.get(id)?.abort(INTERRUPTED);
    this.#runner.trigger(id);
  }

  /** Ends a sandbox for a reason that lies outside (machine died); the kubelet sees it NotReady. */
  fail(id: SandboxId, reason: string): void {
    const failed = { failed: this.#clock.now() };
    if (this.#deps.store.transition(id, CAN_FAIL, 'failed', { reason, lastError: reason }, failed)) {
      this.#log.warn('sandbox failed', { sandboxId: id, reason });
      this.#deps.containers.lost(id, reason);
      this.interrupt(id);
    }
  }

  /** Failures in a row of a sandbox that is tried again. */
  failures(id: SandboxId): number {
    return this.#failures.get(id) ?? 0;
  }

  /** Sandboxes being worked on, and how many of them wait for their next try. */
  get figures(): { readonly active: number; readonly failing: number } {
    return { active: this.#runner.keys.length, failing: this.#failures.size };
  }

  async #reconcile(id: SandboxId, signal: AbortSignal): Promise<NextRun> {
    while (this.#deps.store.get(id) !== undefined) {
      if (!(await this.#round(id, signal))) break;
    }
    this.#failures.delete(id);
    return undefined;
  }

  /** Takes steps, side by side and each as soon as it can be taken, while they serve one wish; false: none was to be taken. */
  async #round(id: SandboxId, signal: AbortSignal): Promise<boolean> {
    const group = new AbortController();
    const together = AbortSignal.any([signal, group.signal]);
    const running = new Map<StepKind, Promise<void>>();
    const begun = this.#building(id);
    // Tearing down serves every wish that can follow; only building is given up.
    if (begun) this.#inProgress.set(id, group);
    // Nothing that starts now is for a sandbox on its way down.
    else this.#deps.gate.leave(id);
    let taken = false;
    for (;;) {
      const fresh = together.aborted || this.#building(id) !== begun ? [] : this.#plan(id);
      for (const step of fresh.filter((each) => !running.has(each))) {
        taken = true;
        running.set(
          step,
          this.#step(step, id, together, group).finally(() => running.delete(step)),
        );
      }
      if (running.size === 0) break;
      // How a step has failed is the group's reason.
      await Promise.race(running.values()).catch(() => undefined);
    }
    this.#inProgress.delete(id);
    signal.throwIfAborted();
    // Interrupted because the wish has changed: plan for the new one at once. Any other failure backs off.
    if (group.signal.aborted && group.signal.reason !== INTERRUPTED) throw group.signal.reason;
    return taken || group.signal.aborted || this.#building(id) !== begun;
  }

  #building(id: SandboxId): boolean {
    const record = this.#deps.store.get(id)?.record;
    return record !== undefined && isBuilding(record);
  }

  #plan(id: SandboxId): readonly StepKind[] {
    const record = this.#deps.store.get(id)?.record;
    if (!record) return [];
    const suspends = this.#config.pools[record.pool]?.idle === 'suspended';
    const { linkFirst = false, directPods = false } = this.#deps.provider;
    return plan(record, { connected: this.#deps.sessions.get(id) !== undefined, linkFirst, directPods, suspends });
  }

  async #step(step: StepKind, id: SandboxId, signal: AbortSignal, group: AbortController): Promise<void> {
    const entry = this.#deps.store.get(id);
    if (!entry) return;
    const silent = SILENT.has(step);
    const ended = this.#observe?.(step, entry.record);
    if (!silent) this.#journal.addStep(id, this.#clock.now(), step, 'intent', '');
    try {
      await this.#executors[step](entry, signal);
      if (!silent) this.#journal.addStep(id, this.#clock.now(), step, 'done', '');
      ended?.('done', this.#facts(id));
    } catch (error) {
      ended?.(signal.aborted ? 'interrupted' : 'failed', this.#facts(id), InfraletError.from(error));
      const message = errorMessage(signal.aborted ? signal.reason : error);
      this.#journal.addStep(id, this.#clock.now(), step, 'failed', message.slice(0, 4000));
      // The other steps of the plan build on the same ground: without this one they are in vain.
      group.abort(error);
      throw error;
    }
  }

  /** What a step may have brought about, for those who look at it from outside. */
  #facts(id: SandboxId): Readonly<Record<string, string | number>> {
    const { instanceId, start, purchase } = this.#deps.store.get(id)?.record ?? {};
    return {
      ...(instanceId === undefined ? {} : { 'infralet.instance.id': instanceId }),
      ...(start === undefined ? {} : { 'infralet.machine.start': start }),
      ...(purchase ? { 'infralet.machine.type': purchase.type, 'infralet.machine.zone': purchase.zone } : {}),
    };
  }

  #failed(id: SandboxId, error: unknown): NextRun {
    const { store } = this.#deps;
    const record = store.get(id)?.record;
    if (!record) return undefined;
    const known = InfraletError.from(error);
    store.update(id, { lastError: known.message });
    if (record.wanted === 'ready' && record.state !== 'failed' && this.#isFinal(record, known)) {
      this.fail(id, known.message);
      return 0;
    }
    const failures = (this.#failures.get(id) ?? 0) + 1;
    this.#failures.set(id, failures);
    const { retryInitial, retryMax } = this.#config.reconciler;
    const pause = backoffMs({ initialMs: retryInitial, maxMs: retryMax, factor: 2, jitter: 0.2 }, failures);
    this.#log.warn('step failed; it will be tried again', { sandboxId: id, error: known, pauseMs: pause, failures });
    return pause;
  }

  /** A sandbox that never was ready fails at its first error: the kubelet asks again, and gets a new one. */
  #isFinal(record: SandboxRecord, error: InfraletError): boolean {
    // Of a ready one only the machine's end is final: gone, not ours, or out of reach for `machine.goneAfter`.
    return record.state !== 'ready' || GONE.has(error.code);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#runner[Symbol.asyncDispose]();
  }
}
