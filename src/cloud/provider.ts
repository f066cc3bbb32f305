/**
 * The provider contract over a cloud's driver: launches of the same kind become one call, everybody reads one machine list,
 * ends go in groups, limits are kept, and what a crash left open is found again by the tokens in `LaunchStore`.
 */
import { createHash } from 'node:crypto';
import { errorMessage, InfraletError } from '../base/errors.ts';
import { type InstanceId, parseInstanceId } from '../base/ids.ts';
import { type Clock, elapsed, until } from '../base/time.ts';
import { machineToken } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { Batcher } from './batcher.ts';
import { type Choice, chooseOffers, listedMemory } from './choice.ts';
import {
  type Check,
  type DescribeQuery,
  type ExplainedOffer,
  type Explanation,
  type Fault,
  type Instance,
  type LaunchRequest,
  type LaunchResult,
  type Leftovers,
  type MachineShape,
  type Power,
  type Provider,
  type ProviderFigures,
  TAGS,
  type Volumes,
} from './contract.ts';
import { eachLaunch } from './contract-batch.ts';
import { CallCounts, countedDriver } from './counted.ts';
import { API_CLASSES, type ApiClass, type CloudDriver, type CloudFault, type CloudMachine } from './driver.ts';
import { LAUNCH_REACTIONS } from './fault-policy.ts';
import type { FleetConfig } from './fleet-config.ts';
import { LaunchCalls, type Outcome } from './launch-calls.ts';
import { LaunchFault, noOffer } from './launch-fault.ts';
import type { LaunchRow, LaunchStore } from './launch-store.ts';
import { CallLimiter } from './limiter.ts';
import { type Offer, offerKey, type Placement } from './offers.ts';
import { MachineSnapshot } from './snapshot.ts';
import { UnavailableOffers } from './unavailable.ts';
import { limitedVolumes } from './volumes.ts';

/** Port of the agent in every machine of a cloud. */
const AGENT_PORT = 7443;
/** Machines that one call ends at most. */
const MAX_ENDS = 500;

export interface CloudProviderOptions {
  readonly driver: CloudDriver;
  readonly config: FleetConfig;
  readonly store: LaunchStore;
  /** Tags of every machine of ours: cluster and node. */
  readonly owner: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Wish {
  readonly request: LaunchRequest;
  readonly offer: Offer;
}

export class CloudProvider implements Provider {
  readonly name: string;
  readonly leased = true;
  readonly linkFirst = true;
  readonly directPods: boolean;
  readonly power?: Power;
  readonly volumes?: Volumes;
  readonly leftovers?: Leftovers;
  readonly limiters: Readonly<Record<ApiClass, CallLimiter>>;
  readonly #options: CloudProviderOptions;
  readonly #driver: CloudDriver;
  readonly #counts = new CallCounts();
  readonly #store: LaunchStore;
  readonly #unavailable: UnavailableOffers;
  readonly #snapshot: MachineSnapshot;
  readonly #calls: LaunchCalls;
  readonly #wishes: Batcher<Wish, Outcome>;
  readonly #ends: Batcher<string, true>;
  readonly #stop = new AbortController();
  /** Launches under way, by token: a second one with the same token waits for the first. */
  readonly #launching = new Map<string, Promise<Instance>>();
  /** Of the catalogue that was read last. */
  #offers: readonly Offer[] = [];
  #catalogue: { readonly at: number; readonly offers: Promise<readonly Offer[]> } | undefined;

  constructor(options: CloudProviderOptions) {
    const { config, store, clock } = options;
    const driver = countedDriver(options.driver, this.#counts);
    this.#options = options;
    this.#driver = driver;
    this.#store = store;
    this.name = driver.name;
    this.directPods = driver.directPods ?? false;
    const limiter = (calls: FleetConfig['limits']['launch'], resources?: FleetConfig['limits']['launch']) =>
      new CallLimiter({ calls, ...(resources ? { resources } : {}), clock });
    this.limiters = {
      launch: limiter(config.limits.launch, config.limits.launchResources),
      describe: limiter(config.limits.describe),
      terminate: limiter(config.limits.terminate),
      other: limiter(config.limits.other),
    };
    this.#unavailable = new UnavailableOffers(config.unavailableTtl, clock);
    this.#snapshot = new MachineSnapshot({
      read: (signal) => this.#list(signal),
      everyMs: config.describeEvery,
      lagMs: config.listLag,
      clock,
      stop: this.#stop.signal,
    });
    // A list that lags may not know what was made just before a restart: until it must, such a machine counts as pending.
    this.#snapshot.made(store.madeSince(clock.now() - config.listLag).map(pendingMachine));
    this.#calls = new LaunchCalls({ ...options, driver, limiter: this.limiters.launch, stop: this.#stop.signal });
    const { power } = driver;
    if (power) {
      this.power = {
        suspend: async (ids, signal) => await this.#switch(ids, 'suspended', power.suspend.bind(power), signal),
        resume: async (ids, signal) => await this.#switch(ids, 'running', power.resume.bind(power), signal),
      };
    }
    const { leftovers, volumes } = driver;
    if (volumes) this.volumes = limitedVolumes(volumes, this.limiters, { everyMs: config.describeEvery, clock });
    if (leftovers) {
      this.leftovers = {
        list: async (signal) => {
          await this.limiters.describe.turn(signal);
          return await leftovers.list(options.owner, signal);
        },
        remove: async (leftover, signal) => {
          await this.limiters.terminate.turn(signal);
          try {
            await leftovers.remove(leftover, signal);
          } catch (error) {
            if (driver.classify(error).kind !== 'not-found-yet') throw error;
          }
        },
      };
    }
    this.#wishes = new Batcher(
      { idleMs: config.batchIdle, maxMs: config.batchMax, maxItems: driver.maxPerCall },
      clock,
      async (_key, wishes) => await this.#calls.begin(wishes),
    );
    this.#ends = new Batcher(
      { idleMs: config.terminateIdle, maxMs: 10 * config.terminateIdle, maxItems: MAX_ENDS },
      clock,
      async (_key, ids) => {
        await this.#terminateGroup([...new Set(ids)]);
        return ids.map(() => true as const);
      },
    );
  }

  async launch(batch: readonly LaunchRequest[], signal: AbortSignal): Promise<readonly LaunchResult[]> {
    return await eachLaunch(batch, async (request) => await this.#launchOnce(request, signal));
  }

  async explain(shape: MachineShape, placement: Placement, signal: AbortSignal): Promise<Explanation> {
    const { ranked, rejected } = await this.#choose({ shape, placement }, signal);
    return {
      ranked: ranked.map(explained),
      rejected: rejected.map(({ offer, reason }) => ({ offer: explained(offer), reason })),
    };
  }

  async #launchOnce(request: LaunchRequest, signal: AbortSignal): Promise<Instance> {
    const running = this.#launching.get(request.token);
    if (running) return await running;
    const work = this.#launchOne(request, signal).finally(() => this.#launching.delete(request.token));
    this.#launching.set(request.token, work);
    return await work;
  }

  async #launchOne(request: LaunchRequest, signal: AbortSignal): Promise<Instance> {
    const { token } = request;
    signal.throwIfAborted();
    this.#store.add(request);
    const known = this.#store.launch(token);
    let outcome: Outcome | undefined;
    if (known?.instanceId !== undefined) outcome = await this.#found(known, signal);
    // A daemon that was killed in the middle of a call repeats the very same one.
    else if (known?.callToken !== undefined) outcome = await this.#calls.repeat(known.callToken, token, signal);
    let lastFault: CloudFault | undefined;
    const passed = new Set<string>();
    for (let asked = 0; ; asked += 1) {
      if (outcome?.machine?.state === 'terminated') {
        // An old token may bring back what has ended since.
        const { id, reason, endedBy = 'terminal' } = outcome.machine;
        this.#store.forgetInstances([id]);
        throw new LaunchFault({ kind: endedBy, message: `the machine ${id} ended as soon as it was made: ${reason}` });
      }
      if (outcome?.machine) {
        this.#snapshot.made([outcome.machine]);
        return this.#instance(outcome.machine, true);
      }
      if (outcome) {
        lastFault = outcome.fault;
        const reaction = LAUNCH_REACTIONS[lastFault.kind];
        if (reaction === 'fail' || reaction === 'repeat') throw new LaunchFault(lastFault);
        const scope = lastFault.scope ?? (reaction === 'next-market' ? 'market' : 'offer');
        this.#unavailable.mark(outcome.offer, scope, lastFault.message);
        request.note?.(`${offerKey(outcome.offer)} is not to be had: ${lastFault.message} (${lastFault.kind})`);
        this.#options.log.info('an offer is not to be had', {
          launch: token,
          offer: offerKey(outcome.offer),
          fault: lastFault.kind,
          reason: lastFault.message,
        });
      }
      const choice = await this.#choose(request, signal);
      const offer = choice.ranked.find((candidate) => !passed.has(offerKey(candidate)));
      if (!offer || asked >= this.#options.config.launchOffers) throw new LaunchFault(noOffer(choice, lastFault));
      passed.add(offerKey(offer));
      const idleMs = lastFault ? this.#options.config.batchNextOffer : this.#options.config.batchIdle;
      outcome = await this.#wishes.add(groupKey(request, offer), { request, offer }, signal, idleMs);
    }
  }

  /** A launch that has its machine already. */
  async #found(row: LaunchRow, signal: AbortSignal): Promise<Outcome> {
    const call = row.callToken === undefined ? undefined : this.#store.call(row.callToken);
    const machine = row.instanceId === undefined ? undefined : (await this.#snapshot.get(signal)).get(row.instanceId);
    if (machine && machine.state !== 'terminated') return { machine };
    const reason = machine?.reason || 'it is gone';
    throw new LaunchFault({
      kind: 'terminal',
      message: `the machine ${row.instanceId ?? ''}${call ? ` (${offerKey(call.call.offer)})` : ''} has ended: ${reason}`,
    });
  }

  /** Which offers would do for this request now. */
  async #choose(request: Pick<LaunchRequest, 'shape' | 'placement'>, signal: AbortSignal): Promise<Choice> {
    const { config, clock } = this.#options;
    if (!this.#catalogue || elapsed(clock, this.#catalogue.at) > config.catalogueTtl) {
      const offers = this.limiters.other.turn(this.#stop.signal).then(() => this.#driver.catalogue(this.#stop.signal));
      const entry = { at: clock.now(), offers };
      this.#catalogue = entry;
      offers.catch(() => {
        if (this.#catalogue === entry) this.#catalogue = undefined;
      });
    }
    const fixed = await this.#catalogue.offers;
    this.#offers = fixed;
    signal.throwIfAborted();
    const reserve = { fixed: config.memoryReserve, share: config.memoryReserveShare };
    const need = { ...request.shape, memoryBytes: listedMemory(request.shape.memoryBytes, reserve) };
    return chooseOffers({
      shape: request.shape,
      placement: request.placement ?? {},
      offers: [...fixed, ...(this.#driver.custom?.(need) ?? [])],
      reserve,
      unavailable: (offer) => this.#unavailable.reason(offer),
    });
  }

  async describe(query: DescribeQuery, signal: AbortSignal): Promise<readonly Instance[]> {
    // Whoever asks for a pod's machines while they are being made wants to know what comes of it.
    if (query.by === 'tags' && query.tags[TAGS.sandbox] !== undefined) await this.#calls.settled(query.tags, signal);
    const machines = await this.#snapshot.get(signal);
    this.#calls.adopt(machines);
    if (query.by === 'ids') {
      return query.ids.flatMap((id) => {
        const machine = machines.get(id);
        return machine ? [this.#instance(machine)] : [];
      });
    }
    return (
      [...machines.values()]
        .filter(({ state }) => state !== 'terminated')
        // Whose a machine of a shared call is, is known when the call has ended: to a sweeper it would be nobody's.
        .filter(({ id, tags }) => this.#store.owner(id) !== undefined || !this.#calls.isRunning(tags[TAGS.token] ?? ''))
        .map((machine) => this.#instance(machine))
        .filter(({ tags }) => carries(tags, query.tags))
    );
  }

  async terminate(ids: readonly InstanceId[], signal: AbortSignal): Promise<void> {
    await Promise.all(ids.map(async (id) => await this.#ends.add('', id, signal)));
  }

  async #terminateGroup(ids: readonly string[]): Promise<void> {
    const signal = this.#stop.signal;
    try {
      await this.#terminateCall(ids, signal);
    } catch (error) {
      const fault = this.#driver.classify(error);
      if (ids.length === 1 && (fault.kind === 'not-found-yet' || fault.kind === 'terminal')) {
        // Gone already: what was wanted.
      } else if (ids.length === 1) throw error;
      else {
        // One unknown id fails the whole call: the others must not stay for it.
        const results = await Promise.allSettled(ids.map((id) => this.#terminateGroup([id])));
        const failed = results.find(({ status }) => status === 'rejected');
        if (failed?.status === 'rejected') throw InfraletError.from(failed.reason);
        return;
      }
    }
    this.#store.forgetInstances(ids);
    this.#snapshot.ended(ids, 'terminated by us');
  }

  async #terminateCall(ids: readonly string[], signal: AbortSignal): Promise<void> {
    const { config, clock } = this.#options;
    for (let attempt = 1; ; attempt += 1) {
      await this.limiters.terminate.turn(signal);
      try {
        await this.#driver.terminate(ids, signal);
        return;
      } catch (error) {
        const { kind, retryAfterMs } = this.#driver.classify(error);
        if (kind === 'throttled') this.limiters.terminate.throttled();
        if ((kind !== 'throttled' && kind !== 'transient') || attempt >= config.launchTries) throw error;
        await clock.sleep(retryAfterMs ?? Math.min(config.retryMax, config.retryInitial * 2 ** attempt), signal);
      }
    }
  }

  /** Asks for another state and waits until the machine list shows it. */
  async #switch(
    ids: readonly InstanceId[],
    wanted: 'running' | 'suspended',
    ask: (ids: readonly string[], signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, config } = this.#options;
    const open = async (): Promise<readonly InstanceId[]> => {
      const machines = await this.#snapshot.get(signal);
      return ids.filter((id) => {
        const state = machines.get(id)?.state;
        if (state !== undefined && state !== 'terminated') return state !== wanted;
        throw new LaunchFault({ kind: 'terminal', message: `the machine ${id} is gone` });
      });
    };
    const first = await open();
    if (first.length === 0) return;
    await this.limiters.other.turn(signal);
    await ask(first, signal);
    await until(async () => ((await open()).length === 0 ? true : undefined), {
      everyMs: config.describeEvery,
      clock,
      signal,
    });
  }

  async #list(signal: AbortSignal): Promise<readonly CloudMachine[]> {
    for (let attempt = 1; ; attempt += 1) {
      await this.limiters.describe.turn(signal);
      try {
        const { machines } = await this.#driver.list(this.#options.owner, signal);
        this.#learn(machines);
        return machines;
      } catch (error) {
        const { kind } = this.#driver.classify(error);
        if (kind === 'throttled') this.limiters.describe.throttled();
        if ((kind !== 'throttled' && kind !== 'transient') || attempt >= this.#options.config.launchTries) throw error;
        this.#options.log.warn('the machine list could not be read; trying again', { reason: errorMessage(error) });
      }
    }
  }

  /** A machine that was made and ended at once for want of capacity says as much as a call that was refused. */
  #learn(machines: readonly CloudMachine[]): void {
    for (const { id, endedBy, reason } of machines) {
      const token = this.#store.owner(id)?.callToken;
      const offer = token === undefined ? undefined : this.#store.call(token)?.call.offer;
      if (!offer || endedBy === undefined || this.#unavailable.reason(offer) !== undefined) continue;
      if (LAUNCH_REACTIONS[endedBy] === 'next-offer') this.#unavailable.mark(offer, 'offer', reason);
    }
  }

  classify(error: unknown): Fault {
    if (error instanceof LaunchFault) return error.fault;
    if (error instanceof InfraletError && error.code === 'INVALID_ARGUMENT') {
      return { kind: 'invalid', message: error.message };
    }
    return this.#driver.classify(error);
  }

  async console(id: InstanceId, maxBytes: number, signal: AbortSignal): Promise<string> {
    await this.limiters.other.turn(signal, 1, -1);
    try {
      return await this.#driver.console(id, maxBytes, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (this.#driver.classify(error).kind === 'not-found-yet') return '';
      throw error;
    }
  }

  figures(): ProviderFigures {
    const classes = API_CLASSES.map((each) => {
      const { waiting, throttles } = this.limiters[each];
      return { class: each, waiting, throttles };
    });
    return { calls: this.#counts.all, classes };
  }

  async doctor(signal: AbortSignal): Promise<readonly Check[]> {
    return await this.#driver.doctor(signal);
  }

  /** @param fresh it was made for whoever asked just now, who learns its token. */
  #instance(machine: CloudMachine, fresh = false): Instance {
    const row = this.#store.owner(machine.id);
    const call = row?.callToken === undefined ? undefined : this.#store.call(row.callToken);
    const { type, zone, market } = machine;
    return {
      id: parseInstanceId(machine.id),
      token: row?.token ?? machine.tags[TAGS.token] ?? '',
      // Machines of a shared call carry what their pods have in common; the rest is ours to know.
      tags: { ...machine.tags, ...row?.tags },
      state: machine.state,
      reason: machine.reason,
      launchedAt: machine.launchedAt,
      shape: row?.shape ?? { cpuMillis: 0, memoryBytes: 0, diskBytes: 0 },
      agent: machine.address === undefined ? undefined : { host: machine.address, port: AGENT_PORT },
      podLink: this.#driver.podLink(machine),
      start: 'boot',
      purchase: { type, zone, market, pricePerHour: call?.call.offer.pricePerHour ?? this.#listPrice(machine) },
      ...(fresh && call && call.seed !== '' ? { enrolToken: machineToken(call.seed, machine.id) } : {}),
    };
  }

  /** Of a machine that nobody remembers having bought; 0 while the catalogue has not been read. */
  #listPrice({ type, zone, market }: CloudMachine): number {
    const offer = this.#offers.find((each) => each.type.name === type && each.zone === zone && each.market === market);
    return offer?.pricePerHour ?? 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new InfraletError('UNAVAILABLE', 'the provider is closed'));
    await Promise.allSettled(this.#launching.values());
    await this.#driver[Symbol.asyncDispose]();
    this.#store[Symbol.dispose]();
  }
}

function explained({ type, zone, market, pricePerHour, estimated }: Offer): ExplainedOffer {
  const { name, cpuMillis, memoryBytes, gpus } = type;
  return { type: name, zone, market, pricePerHour, estimated, cpuMillis, memoryBytes, gpus };
}

function pendingMachine({ instanceId, row }: ReturnType<LaunchStore['madeSince']>[number]): CloudMachine {
  const { offer, tags } = row.call;
  return {
    id: instanceId,
    tags,
    state: 'pending',
    reason: '',
    launchedAt: row.at,
    address: undefined,
    type: offer.type.name,
    zone: offer.zone,
    market: offer.market,
  };
}

function carries(tags: Readonly<Record<string, string>>, wanted: Readonly<Record<string, string>>): boolean {
  return Object.entries(wanted).every(([key, value]) => tags[key] === value);
}

/** Launches with the same key can be made by one call. */
function groupKey({ shape }: LaunchRequest, offer: Offer): string {
  return createHash('sha256')
    .update(`${offerKey(offer)}|${shape.diskBytes}`)
    .digest('hex');
}
