/**
 * Finds what carries this node's name and belongs to no sandbox: machines, pod networks, and what machines left behind.
 * Removed is what two looks in a row have found and what is old enough: lists of clouds lag behind.
 */
import { errorMessage } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';
import { type Instance, type Leftover, ownerTags, type Provider, TAGS } from '../cloud/contract.ts';
import type { Config } from '../config/schema.ts';
import type { PodNetwork } from '../network/pod-network.ts';
import type { Logger } from '../telemetry/log.ts';
import type { SandboxStore } from './store.ts';

export interface SweeperDeps {
  readonly config: Config;
  readonly nodeName: string;
  readonly provider: Pick<Provider, 'describe' | 'terminate' | 'leftovers'>;
  readonly network: Pick<PodNetwork, 'list' | 'remove'>;
  readonly store: Pick<SandboxStore, 'knows'>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** By kind of thing. */
export interface SweepFigures {
  /** Of nobody at the last look. */
  readonly found: Readonly<Record<Orphan['kind'], number>>;
  /** Removed so far. */
  readonly removed: Readonly<Record<Orphan['kind'], number>>;
}

export const ORPHAN_KINDS = ['machine', 'network', 'disk', 'interface', 'address'] as const;

/** JSON-able. */
export interface Orphan {
  readonly kind: (typeof ORPHAN_KINDS)[number];
  readonly id: string;
  /** Of the sandbox that it was made for, where it says so. */
  readonly sandboxId: string;
  /** Since it was made, or since it was first seen where nobody knows that; milliseconds. */
  readonly ageMs: number;
  /** US dollars; null where it costs nothing by itself or nobody knows. */
  readonly pricePerHour: number | null;
}

export interface RemovalResult {
  readonly kind: Orphan['kind'];
  readonly id: string;
  /** `young`: left alone for now. `gone`: it was not there any more, or is somebody's. */
  readonly outcome: 'removed' | 'young' | 'gone' | 'failed';
  /** Why it has failed. */
  readonly reason: string;
}

interface Found extends Orphan {
  readonly key: string;
  readonly remove: (signal: AbortSignal) => Promise<void>;
}

export class Sweeper implements AsyncDisposable {
  readonly #deps: SweeperDeps;
  readonly #stop = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  /** What nobody owned at the last look, with the time when it was seen first. */
  #suspects: ReadonlyMap<string, number> = new Map();
  #figures: SweepFigures = { found: countKinds([]), removed: countKinds([]) };

  constructor(deps: SweeperDeps) {
    this.#deps = deps;
  }

  get figures(): SweepFigures {
    return this.#figures;
  }

  start(): void {
    this.#loop = this.#run(this.#stop.signal);
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, config, log } = this.#deps;
    const { sweep, sweepFirst, sweepFirstRounds } = config.reconciler;
    try {
      for (let round = 1; ; round += 1) {
        try {
          await this.sweep(signal);
        } catch (error) {
          signal.throwIfAborted();
          log.warn('the sweep failed; it will be tried again', { reason: errorMessage(error) });
        }
        await clock.sleep(round <= sweepFirstRounds ? Math.min(sweepFirst, sweep) : sweep, signal);
      }
    } catch (error) {
      if (!signal.aborted) log.error('the sweeper ended', { error });
    }
  }

  /** One look; removes what was nobody's at the last one too. */
  async sweep(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    const orphans = await this.#look(signal);
    const again = orphans.filter((orphan) => this.#suspects.has(orphan.key) && this.#isOld(orphan));
    const now = clock.now();
    this.#suspects = new Map(orphans.map(({ key }) => [key, this.#suspects.get(key) ?? now]));
    for (const { kind, id, sandboxId, ageMs } of again) {
      log.warn('removing what nobody owns', { kind, id, sandboxId, ageMs });
    }
    this.#figures = { ...this.#figures, found: countKinds(orphans) };
    const failed = new Set<Found>();
    await removeAll(again, signal, (orphan, error) => {
      failed.add(orphan);
      const { kind, id } = orphan;
      log.warn('what nobody owns could not be removed; it will be tried again', {
        ...{ kind, id, reason: errorMessage(error) },
      });
    });
    this.#count(again.filter((orphan) => !failed.has(orphan)));
  }

  #count(removed: readonly Found[]): void {
    const { found } = this.#figures;
    const sum = { ...this.#figures.removed };
    for (const { kind } of removed) sum[kind] += 1;
    this.#figures = { found, removed: sum };
  }

  /** What is nobody's now, be it young. */
  async orphans(signal: AbortSignal): Promise<readonly Orphan[]> {
    return (await this.#look(signal)).map(({ kind, id, sandboxId, ageMs, pricePerHour }) => ({
      ...{ kind, id, sandboxId, ageMs, pricePerHour },
    }));
  }

  /** Removes those of the named ones that are nobody's still. */
  async remove(named: readonly Pick<Orphan, 'kind' | 'id'>[], signal: AbortSignal): Promise<readonly RemovalResult[]> {
    const found = new Map((await this.#look(signal)).map((orphan) => [orphan.key, orphan]));
    const wanted = named.map((each) => ({ ...each, orphan: found.get(keyOf(each)) }));
    const old = wanted.flatMap(({ orphan }) => (orphan && this.#isOld(orphan) ? [orphan] : []));
    const failures = new Map<string, string>();
    await removeAll(old, signal, ({ key }, error) => failures.set(key, errorMessage(error)));
    this.#count(old.filter(({ key }) => !failures.has(key)));
    return wanted.map(({ kind, id, orphan }) => {
      if (!orphan) return { kind, id, outcome: 'gone', reason: '' };
      if (!this.#isOld(orphan)) return { kind, id, outcome: 'young', reason: '' };
      const reason = failures.get(orphan.key);
      return { kind, id, outcome: reason === undefined ? 'removed' : 'failed', reason: reason ?? '' };
    });
  }

  #isOld({ ageMs }: Orphan): boolean {
    return ageMs >= this.#deps.config.reconciler.orphanAge;
  }

  async #look(signal: AbortSignal): Promise<readonly Found[]> {
    const { config, provider, network, store, nodeName } = this.#deps;
    // What exists first, the journal second: a sandbox made in between is then never taken for an orphan.
    const tags = ownerTags(config.cluster, nodeName);
    const machines = await provider.describe({ by: 'tags', tags }, signal);
    const leftovers = (await provider.leftovers?.list(signal)) ?? [];
    const namespaces = await network.list(signal);
    const all = [
      ...machines.map((machine) => this.#machine(machine)),
      ...leftovers.map((leftover) => this.#leftover(leftover)),
      ...namespaces.map((id): Found => {
        const spec = { sandboxId: id, podName: '', podNamespace: '', podUid: '', portMappings: [] };
        const orphan = { kind: 'network', id, sandboxId: id, pricePerHour: null } as const;
        return {
          ...orphan,
          ...this.#seen(orphan, undefined),
          remove: async (stop) => await network.remove(spec, stop),
        };
      }),
    ];
    return all.filter(({ sandboxId }) => !store.knows(sandboxId));
  }

  #machine({ id, tags, launchedAt, purchase }: Instance): Found {
    const price = purchase?.pricePerHour ?? 0;
    const sandboxId = tags[TAGS.sandbox] ?? '';
    const orphan = { kind: 'machine', id, sandboxId, pricePerHour: price > 0 ? price : null } as const;
    const remove = async (signal: AbortSignal): Promise<void> => await this.#deps.provider.terminate([id], signal);
    return { ...orphan, ...this.#seen(orphan, launchedAt), remove };
  }

  #leftover(leftover: Leftover): Found {
    const { kind, id, tags, createdAt } = leftover;
    const orphan = { kind, id, sandboxId: tags[TAGS.sandbox] ?? '', pricePerHour: null };
    const remove = async (signal: AbortSignal): Promise<void> =>
      await this.#deps.provider.leftovers?.remove(leftover, signal);
    return { ...orphan, ...this.#seen(orphan, createdAt), remove };
  }

  #seen(orphan: Pick<Orphan, 'kind' | 'id'>, madeAt: number | undefined): Pick<Found, 'key' | 'ageMs'> {
    const key = keyOf(orphan);
    const now = this.#deps.clock.now();
    return { key, ageMs: Math.max(0, now - (madeAt ?? this.#suspects.get(key) ?? now)) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }
}

function keyOf({ kind, id }: Pick<Orphan, 'kind' | 'id'>): string {
  return `${kind}/${id}`;
}

/** Side by side, so that ends share a call; one that fails keeps none of the others. Machines first: they hold the rest. */
function countKinds(orphans: readonly Orphan[]): Record<Orphan['kind'], number> {
  const counts = { machine: 0, network: 0, disk: 0, interface: 0, address: 0 };
  for (const { kind } of orphans) counts[kind] += 1;
  return counts;
}

async function removeAll(
  orphans: readonly Found[],
  signal: AbortSignal,
  failed: (orphan: Found, error: unknown) => void,
): Promise<void> {
  const machines = orphans.filter(({ kind }) => kind === 'machine');
  const rest = orphans.filter(({ kind }) => kind !== 'machine');
  for (const group of [machines, rest]) {
    await Promise.all(
      group.map(async (orphan) => {
        try {
          await orphan.remove(signal);
        } catch (error) {
          signal.throwIfAborted();
          failed(orphan, error);
        }
      }),
    );
  }
}
