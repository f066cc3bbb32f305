/**
 * Machines that are up and connected before their pods are known. Each has a sandbox record from its beginning, so journal,
 * planner and sweeper care for it as for any other; what is here is how many there are, and who gets one.
 * A member is claimed once, by one durable write, and never comes back.
 */
import { backoffMs } from '../base/backoff.ts';
import type { SandboxId } from '../base/ids.ts';
import type { Clock } from '../base/time.ts';
import type { MachineShape, Provider } from '../cloud/contract.ts';
import type { Config } from '../config/schema.ts';
import type { PodSandboxConfig__Output } from '../gen/runtime/v1/PodSandboxConfig.ts';
import type { ChannelDialer } from '../guest/channel.ts';
import type { Logger } from '../telemetry/log.ts';
import { newRecord, noPod, type PodFacts } from './new-record.ts';
import type { MachineDemand } from './placement.ts';
import { isOfClass, type PoolClass, poolClasses, sameShape, serves } from './pool-classes.ts';
import { type PoolTarget, poolTarget } from './pool-size.ts';
import type { Reconciler } from './reconciler.ts';
import type { SandboxRecord } from './record.ts';
import type { Sessions } from './session.ts';
import { isWaiting, type SandboxStore } from './store.ts';

export interface PoolOptions {
  readonly config: Config;
  readonly provider: Provider;
  readonly dialer: Pick<ChannelDialer, 'newToken'>;
  readonly store: SandboxStore;
  readonly sessions: Pick<Sessions, 'get'>;
  readonly reconciler: Pick<Reconciler, 'trigger' | 'interrupt'>;
  /** Digest of the guest image that machines are made of now; empty when that is not known. Never rejects. */
  readonly guestImage: () => Promise<string>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Until a first machine has shown how long one takes; milliseconds. */
const FIRST_REFILL_MS = 3000;
/** How much the newest measurement counts. */
const SMOOTHING = 0.3;

interface PoolState {
  readonly class: PoolClass;
  /** When pods came that could have had a machine of this pool, within its window. */
  arrivals: readonly number[];
  refillMs: number;
  claims: number;
  misses: number;
  /** Machines that failed before a pod took them. */
  failed: number;
  /** Of those in a row. */
  failures: number;
  /** No new machine before this time, milliseconds since the epoch. */
  notBefore: number;
}

export interface PoolView {
  readonly name: string;
  readonly shape: MachineShape;
  readonly target: PoolTarget;
  readonly waiting: number;
  readonly starting: number;
  /** Pods that got a machine of the pool, and those that fitted and found none, since the daemon started. */
  readonly claims: number;
  readonly misses: number;
  readonly failed: number;
  readonly arrivals: number;
  readonly windowMs: number;
  readonly refillMs: number;
  readonly members: readonly SandboxRecord[];
}

export class Pool implements AsyncDisposable {
  readonly #options: PoolOptions;
  readonly #pools: readonly PoolState[];
  readonly #stop = new AbortController();
  #image = '';
  readonly #following = new Set<Promise<void>>();

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#pools = poolClasses(options.config, options.provider).map((each) => ({
      class: each,
      arrivals: [],
      ...{ refillMs: FIRST_REFILL_MS, claims: 0, misses: 0, failed: 0, failures: 0, notBefore: 0 },
    }));
  }

  /** Takes over the members that the journal knows, and goes on from there. */
  start(): void {
    for (const { record } of this.#options.store.all()) {
      if (record.pool === '') continue;
      const pool = this.#pools.find(({ class: each }) => each.name === record.pool);
      const asConfigured = this.#options.config.pools[record.pool]?.idle === 'suspended' || record.power === 'on';
      if (pool && asConfigured && isOfClass(pool.class, record)) this.#later(this.#follow(record.id, pool));
      // The configuration has changed since: nobody may have it any more.
      else this.#remove(record);
    }
    if (this.#pools.length > 0) this.#later(this.#run());
  }

  /** Gives a waiting machine to the pod; undefined when no pool has one that fits. */
  claim(pod: MachineDemand & { readonly facts: PodFacts }, config: PodSandboxConfig__Output): SandboxId | undefined {
    const { store, clock, reconciler, log, provider } = this.#options;
    const { facts, shape } = pod;
    const fitting = this.#pools.filter((each) => serves(each.class, pod, facts.runtimeHandler));
    const now = clock.now();
    for (const pool of fitting.slice(0, 1)) pool.arrivals = [...pool.arrivals, now];
    for (const pool of fitting) {
      const member = this.#members(pool).find((record) => this.#isReady(record));
      if (!member) continue;
      const resize = provider.resize !== undefined && !sameShape(member.shape, shape);
      const timeline = { ...facts.timeline, claimed: now };
      const change = { ...facts, timeline, resize, ...(resize ? { shape } : {}) };
      if (!store.claim(member.id, change, config)) continue;
      pool.claims += 1;
      log.debug('a pod gets a machine of a pool', { sandboxId: member.id, pool: pool.class.name });
      reconciler.trigger(member.id);
      this.#look();
      return member.id;
    }
    for (const pool of fitting.slice(0, 1)) {
      pool.misses += 1;
      this.#look();
    }
    return undefined;
  }

  view(): readonly PoolView[] {
    return this.#pools.map((pool) => {
      const members = this.#members(pool);
      const waiting = members.filter((record) => this.#isReady(record)).length;
      const { claims, misses, failed, refillMs } = pool;
      return {
        ...{ name: pool.class.name, shape: pool.class.shape, target: this.#target(pool) },
        ...{ waiting, starting: members.length - waiting, claims, misses, failed, refillMs },
        ...{ arrivals: pool.arrivals.length, windowMs: pool.class.windowMs, members },
      };
    });
  }

  async #run(): Promise<void> {
    const { clock, config } = this.#options;
    while (!this.#stop.signal.aborted) {
      this.#image = await this.#options.guestImage();
      this.#look();
      await clock.sleep(config.reconciler.poolCheck, this.#stop.signal);
    }
  }

  /** Members that may still be claimed one day, the oldest first. */
  #members(pool: PoolState): readonly SandboxRecord[] {
    return this.#options.store.members(pool.class.name).filter(({ wanted, state }) => {
      return wanted === 'ready' && state !== 'failed';
    });
  }

  #isReady(record: SandboxRecord): boolean {
    const idle = this.#options.config.pools[record.pool]?.idle;
    const there =
      idle === 'suspended' ? record.power === 'suspended' : this.#options.sessions.get(record.id) !== undefined;
    return isWaiting(record) && there && !this.#isOutdated(record);
  }

  /** Made of another guest image than machines are now, or soon without a certificate that it cannot renew. */
  #isOutdated({ image, power, timeline }: SandboxRecord): boolean {
    const { clock, config } = this.#options;
    if (image !== '' && this.#image !== '' && image !== this.#image) return true;
    const { leafLife, renewBefore } = config.pki;
    return power === 'suspended' && clock.now() > (timeline['enrolled'] ?? 0) + leafLife - renewBefore;
  }

  #target(pool: PoolState): PoolTarget {
    const { size, windowMs, ceilings } = pool.class;
    const since = this.#options.clock.now() - windowMs;
    pool.arrivals = pool.arrivals.filter((at) => at > since);
    return poolTarget(size, { arrivals: pool.arrivals.length, windowMs, refillMs: pool.refillMs }, ceilings);
  }

  /** Begins what is missing and ends what is too much. The start-up gate decides when a machine starts. */
  #look(): void {
    if (this.#stop.signal.aborted) return;
    for (const pool of this.#pools) {
      for (const record of this.#members(pool)) if (this.#isOutdated(record)) this.#remove(record);
      const members = this.#members(pool);
      const { size } = this.#target(pool);
      // Those go first that have cost the least.
      const byWorth = [...members].sort((a, b) => Number(this.#isReady(b)) - Number(this.#isReady(a)));
      for (const record of byWorth.slice(size)) this.#remove(record);
      const pauseMs = pool.notBefore - this.#options.clock.now();
      // Longer than any pause: the clock was set back.
      if (pauseMs > 0 && pauseMs <= 2 * this.#options.config.reconciler.retryMax) continue;
      for (let missing = size - members.length; missing > 0; missing -= 1) this.#add(pool);
    }
  }

  #add(pool: PoolState): void {
    const { config, clock, dialer, store, reconciler } = this.#options;
    const { name, shape, placement } = pool.class;
    const machine = { cluster: config.cluster, pool: name, enrolToken: dialer.newToken(), shape, placement };
    const record = newRecord(noPod(clock.now()), machine);
    store.addMember(record);
    this.#later(this.#follow(record.id, pool));
    reconciler.trigger(record.id);
  }

  #remove(record: SandboxRecord): void {
    this.#options.store.update(record.id, { wanted: 'removed' });
    this.#options.reconciler.interrupt(record.id);
  }

  /** Until it is a pod's or gone; one that fails is taken down, and another made after a while. */
  async #follow(id: SandboxId, pool: PoolState): Promise<void> {
    const { store, clock, config, log } = this.#options;
    const { signal } = this.#stop;
    const first = await store.wait(id, (record) => fate(record) ?? (record && waits(record)), signal);
    if (first.kind === 'waiting') {
      pool.failures = 0;
      if (first.tookMs !== undefined) pool.refillMs += SMOOTHING * (first.tookMs - pool.refillMs);
    }
    const end = first.kind === 'waiting' ? await store.wait(id, fate, signal) : first;
    if (end.kind === 'failed') {
      pool.failed += 1;
      pool.failures += 1;
      const { retryInitial, retryMax } = config.reconciler;
      const pauses = { initialMs: retryInitial, maxMs: retryMax, factor: 2, jitter: 0.2 };
      const pauseMs = backoffMs(pauses, pool.failures);
      pool.notBefore = clock.now() + pauseMs;
      log.warn('a machine of a pool has failed; another follows', {
        ...{ sandboxId: id, pool: pool.class.name, reason: end.record.reason, pauseMs, failures: pool.failures },
      });
      this.#remove(end.record);
      await clock.sleep(pauseMs, signal);
    }
    if (end.kind !== 'claimed') this.#look();
  }

  #later(work: Promise<void>): void {
    const done = work
      .catch((error: unknown) => {
        if (!this.#stop.signal.aborted) this.#options.log.error('the care of a pool has ended', { error });
      })
      .finally(() => this.#following.delete(done));
    this.#following.add(done);
  }

  /** Its machines stay, for the next run of the daemon. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#following);
  }
}

type Fate =
  | { readonly kind: 'gone' | 'claimed' }
  | { readonly kind: 'failed'; readonly record: SandboxRecord }
  /** The time it took since its turn came, unless it has been there before this daemon. */
  | { readonly kind: 'waiting'; readonly tookMs: number | undefined };

function fate(record: SandboxRecord | undefined): Fate | undefined {
  if (!record) return { kind: 'gone' };
  if (record.pool === '') return { kind: 'claimed' };
  return record.state === 'failed' && record.wanted === 'ready' ? { kind: 'failed', record } : undefined;
}

function waits(record: SandboxRecord): Fate | undefined {
  if (!isWaiting(record)) return undefined;
  const { turn, connected, rehearsed = connected } = record.timeline;
  return { kind: 'waiting', tookMs: turn === undefined || rehearsed === undefined ? undefined : rehearsed - turn };
}
