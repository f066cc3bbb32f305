/** Makes launch calls: written down first, made under the limits, repeated with the same token while the outcome is open. */
import { createHash, randomBytes } from 'node:crypto';
import { backoffMs } from '../base/backoff.ts';
import { errorMessage, InfraletError } from '../base/errors.ts';
import { abortable } from '../base/keyed-lock.ts';
import type { Clock } from '../base/time.ts';
import { shareUserData } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { type LaunchRequest, TAGS } from './contract.ts';
import type { CloudDriver, CloudFault, CloudMachine, LaunchCall } from './driver.ts';
import { LAUNCH_REACTIONS } from './fault-policy.ts';
import type { FleetConfig } from './fleet-config.ts';
import type { LaunchStore } from './launch-store.ts';
import type { CallLimiter } from './limiter.ts';
import { type Offer, offerKey } from './offers.ts';

/** What became of one launch's part in a call. */
export type Outcome =
  | { readonly machine: CloudMachine }
  | { readonly machine?: never; readonly fault: CloudFault; readonly offer: Offer };

export interface LaunchCallsOptions {
  readonly driver: CloudDriver;
  readonly config: FleetConfig;
  readonly store: LaunchStore;
  readonly limiter: CallLimiter;
  readonly clock: Clock;
  readonly log: Logger;
  readonly stop: AbortSignal;
}

export class LaunchCalls {
  readonly #options: LaunchCallsOptions;
  /** Calls that are being made now, by their token. */
  readonly #running = new Map<string, Promise<ReadonlyMap<string, Outcome>>>();

  constructor(options: LaunchCallsOptions) {
    this.#options = options;
  }

  /** One call for all of these launches; one outcome each, in their order. */
  async begin(
    wishes: readonly { readonly request: LaunchRequest; readonly offer: Offer }[],
  ): Promise<readonly Outcome[]> {
    const { store, clock } = this.#options;
    const [first] = wishes;
    if (!first) return [];
    const tokens = wishes.map(({ request }) => request.token);
    const seed = wishes.length === 1 ? '' : randomBytes(32).toString('base64url');
    const call: LaunchCall = {
      token: callToken(tokens.map((token) => `${token}:${store.launch(token)?.tries ?? 0}`)),
      offer: first.offer,
      count: wishes.length,
      tags: {},
      userData: seed === '' ? first.request.userData : shareUserData(first.request.userData, seed),
      diskBytes: first.request.shape.diskBytes,
    };
    const tags = { ...commonTags(wishes.map(({ request }) => request.tags)), [TAGS.token]: call.token };
    store.begin({ ...call, tags }, seed, tokens, clock.now());
    const outcomes = await this.#run({ ...call, tags });
    return tokens.map((token) => outcomes.get(token) ?? lostOutcome(call));
  }

  /** Finishes a call that a killed daemon left open. */
  async repeat(token: string, launch: string, signal: AbortSignal): Promise<Outcome> {
    const row = this.#options.store.call(token);
    if (!row) throw new InfraletError('DATA_LOSS', `the launch call ${token} is not in the store`);
    const outcomes = await abortable(this.#run(row.call), signal);
    return outcomes.get(launch) ?? lostOutcome(row.call);
  }

  /**
   * Deals out machines that a list shows and no launch has yet: their call answered nobody. A call that is under way does
   * this itself.
   */
  adopt(machines: ReadonlyMap<string, CloudMachine>): void {
    const { store } = this.#options;
    const open = new Map<string, CloudMachine[]>(
      store.openCalls().flatMap((token) => (this.#running.has(token) ? [] : [[token, []]])),
    );
    if (open.size === 0) return;
    for (const machine of machines.values()) {
      if (machine.state !== 'terminated') open.get(machine.tags[TAGS.token] ?? '')?.push(machine);
    }
    for (const [token, made] of open) if (made.length > 0) this.#deal(token, made);
  }

  /** Whether the call with this token is being made. */
  isRunning(token: string): boolean {
    return this.#running.has(token);
  }

  /** Resolves when no launch with these tags is part of a call that is being made. */
  async settled(tags: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void> {
    const { store } = this.#options;
    const concerned = [...this.#running].filter(([token]) =>
      store.waiting(token).some((row) => Object.entries(tags).every(([key, value]) => row.tags[key] === value)),
    );
    await abortable(Promise.allSettled(concerned.map(([, work]) => work)), signal);
  }

  async #run(call: LaunchCall): Promise<ReadonlyMap<string, Outcome>> {
    const running = this.#running.get(call.token);
    if (running) return await running;
    const work = this.#make(call).finally(() => this.#running.delete(call.token));
    this.#running.set(call.token, work);
    return await work;
  }

  async #make(call: LaunchCall): Promise<ReadonlyMap<string, Outcome>> {
    const { driver, config, store, limiter, clock, log, stop } = this.#options;
    for (let attempt = 1; ; attempt += 1) {
      await limiter.turn(stop, call.count);
      let error: unknown;
      try {
        return this.#deal(call.token, await driver.launch(call, stop));
      } catch (thrown) {
        stop.throwIfAborted();
        error = thrown;
      }
      const fault = driver.classify(error);
      if (fault.kind === 'throttled') limiter.throttled();
      if (LAUNCH_REACTIONS[fault.kind] !== 'repeat' || attempt >= config.launchTries) {
        const waiting = store.waiting(call.token);
        // The outcome of a passing fault stays open: the same launch comes back with the same call.
        if (LAUNCH_REACTIONS[fault.kind] !== 'repeat') store.release(waiting.map(({ token }) => token));
        return new Map(waiting.map(({ token }) => [token, { fault, offer: call.offer }]));
      }
      const pause =
        fault.retryAfterMs ??
        backoffMs({ initialMs: config.retryInitial, maxMs: config.retryMax, factor: 2, jitter: 0.2 }, attempt);
      log.warn('a launch call failed for now', {
        offer: offerKey(call.offer),
        machines: call.count,
        fault: fault.kind,
        reason: errorMessage(error),
        pauseMs: pause,
      });
      await clock.sleep(pause, stop);
    }
  }

  /** Which machine is whose follows from two sorted lists: a repeated call deals them out the same way. */
  #deal(token: string, machines: readonly CloudMachine[]): ReadonlyMap<string, Outcome> {
    const { store } = this.#options;
    const free = machines.filter(({ id }) => !store.owner(id)).sort((a, b) => (a.id < b.id ? -1 : 1));
    const waiting = store.waiting(token);
    const pairs = waiting.flatMap((row, index) => {
      const machine = free[index];
      return machine ? [{ row, machine }] : [];
    });
    store.assign(pairs.map(({ row, machine }) => ({ token: row.token, instanceId: machine.id })));
    const outcomes = new Map<string, Outcome>(pairs.map(({ row, machine }) => [row.token, { machine }]));
    const call = store.call(token)?.call;
    const without = waiting.slice(pairs.length);
    if (call && without.length > 0) {
      // Fewer than asked for: the rest of this offer is not to be had now.
      const message = `${machines.length} of ${call.count} machines were to be had (${offerKey(call.offer)})`;
      for (const { token: launch } of without) {
        outcomes.set(launch, { fault: { kind: 'no-capacity', message }, offer: call.offer });
      }
      store.release(without.map(({ token: launch }) => launch));
    }
    return outcomes;
  }
}

/** Deterministic per launches and their tries, so that the call can be told from every other one. */
function callToken(parts: readonly string[]): string {
  return createHash('sha256')
    .update([...parts].sort().join('|'))
    .digest('hex')
    .slice(0, 32);
}

function commonTags(all: readonly Readonly<Record<string, string>>[]): Readonly<Record<string, string>> {
  const [first = {}, ...rest] = all;
  return Object.fromEntries(Object.entries(first).filter(([key, value]) => rest.every((tags) => tags[key] === value)));
}

function lostOutcome(call: LaunchCall): Outcome {
  const message = `the launch call ${call.token} ended without a machine for this pod`;
  return { fault: { kind: 'transient', message }, offer: call.offer };
}
