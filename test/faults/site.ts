/**
 * One node at one cloud that lives through many crashes: a pod that nobody touches, which must never notice, and for each
 * cell of the matrix others that are asked for or ended while the daemon is killed. Time is virtual, so the settings are
 * those of real use; journal and launch store are real files.
 */
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../../src/base/time.ts';
import { VirtualClock } from '../support/cloud/virtual-clock.ts';
import { KillSwitch } from '../support/kill-switch.ts';
import { World } from '../support/world.ts';
import { type Cloud, type CloudName, openEc2, openGce } from './clouds.ts';
import { Kubelet } from './kubelet.ts';
import { type Answer, Outside } from './outside.ts';
import type { Row } from './rows.ts';

type Daemon = ReturnType<World['start']>;

export interface Cell {
  readonly row: Row;
  readonly answer: Answer;
  readonly when: 'before' | 'after';
  readonly seed: number;
}

/** In memory where that is possible: a killed process loses nothing that it wrote, and syncing to a disk takes most of the time. */
const DIRECTORY = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

/** Something that happens to a node whose pods run. */
export interface Incident {
  readonly name: string;
  readonly strike: (scene: Scene) => Promise<void>;
}

export interface Scene {
  /** Of the pod that it happens to. */
  readonly sandbox: string;
  readonly clock: VirtualClock;
  readonly guests: World['guests'];
  readonly signal: AbortSignal;
  /** The daemon is killed and another one starts, perhaps without the files of the first. */
  readonly crash: (lose?: 'journal' | 'all') => Promise<void>;
}

/** Virtual time after which what should be so is not; milliseconds. */
const PATIENCE_MS = 3 * 3600_000;

export class Site implements AsyncDisposable {
  readonly clock: VirtualClock;
  readonly #world: World;
  readonly #cloud: Cloud | undefined;
  readonly #outside: Outside;
  readonly #pool: number;
  readonly #stack: AsyncDisposableStack;
  #killSwitch: KillSwitch;
  #daemon: Daemon;
  #pods = 0;
  /** The pod that nobody touches, with its machine. */
  #untouched: { readonly sandbox: string; readonly machine: string } | undefined;

  private constructor(parts: {
    readonly clock: VirtualClock;
    readonly world: World;
    readonly cloud: Cloud | undefined;
    readonly pool: number;
    readonly stack: AsyncDisposableStack;
  }) {
    this.clock = parts.clock;
    this.#world = parts.world;
    this.#cloud = parts.cloud;
    this.#pool = parts.pool;
    this.#stack = parts.stack;
    this.#outside = new Outside();
    this.#killSwitch = this.#newSwitch();
    this.#daemon = this.#world.start(this.#killSwitch);
  }

  /** @param pool machines that wait suspended for pods. */
  static async open(name: CloudName, lagMs: number, pool: number): Promise<Site> {
    await using stack = new AsyncDisposableStack();
    const clock = new VirtualClock();
    const directory = await mkdtemp(join(DIRECTORY, 'infralet-faults-'));
    stack.defer(() => rm(directory, { recursive: true }));
    const setting = { clock, stateDir: directory, lagMs };
    const cloud = name === 'ec2' ? await openEc2(setting) : name === 'gce' ? await openGce(setting) : undefined;
    if (cloud) stack.use(cloud);
    const pools = pool === 0 ? {} : { one: { size: pool, cpuMillis: 2000, idle: 'suspended' } };
    const settings = { isolation: { templateSharing: 'off' }, pools };
    const world = await World.make(directory, settings, {
      clock,
      ...(cloud ? { openProvider: cloud.openProvider } : {}),
    });
    stack.use(world.provider);
    const site = new Site({ clock, world, cloud, pool, stack: stack.move() });
    await clock.run(site.#settle());
    return site;
  }

  #newSwitch(): KillSwitch {
    return new KillSwitch(Number.POSITIVE_INFINITY, 'after', (name, args, call) =>
      this.#outside.meet(name, args, call),
    );
  }

  async #settle(): Promise<void> {
    const kubelet = new Kubelet('untouched', this.clock, this.#patience('the first pod'));
    const sandbox = await kubelet.run(this.#daemon);
    await this.#exactly(1, 'the first pod');
    this.#untouched = { sandbox, machine: this.#machineOf(sandbox) };
  }

  #machineOf(sandbox: string): string {
    const { instanceId } = this.#daemon.sandboxes.describe(sandbox);
    if (typeof instanceId !== 'string') throw new Error(`sandbox ${sandbox} has no machine`);
    return instanceId;
  }

  async run(cell: Cell): Promise<void> {
    await this.clock.run(this.#run(cell));
  }

  async #run({ row, answer, when, seed }: Cell): Promise<void> {
    const where = `${row.step} (${row.what}), ${answer}, killed ${when}, seed ${seed}`;
    const signal = this.#patience(where);
    // Several at once share a launch call; the kill strikes one of them, and the fault so many calls in a row.
    const count = row.wish === 'claim' ? 1 : Math.min(1 + seed, 2);
    const nth = row.effect.startsWith('provider.') || row.effect.startsWith('store.') ? 1 : 1 + (seed % count);
    this.#pods += 1;
    const kubelets = Array.from(
      { length: count },
      (_, index) => new Kubelet(`pod-${this.#pods}-${index}`, this.clock, signal),
    );
    const running = row.wish === 'run' || row.wish === 'claim';
    if (!running) await Promise.all(kubelets.map((each) => each.run(this.#daemon)));
    if (row.call && this.#cloud) this.#cloud.inflict(row.call, answer, 1 + seed, seed);
    else this.#outside.plan(row.effect, answer, 1 + seed);
    const made = this.#cloud?.made() ?? 0;
    const uids = new Set(kubelets.map(({ uid }) => uid));
    this.#killSwitch.arm(nth, when, (name, args) => name === row.effect && concerns(args, uids));
    const wish = (kubelet: Kubelet, daemon: Daemon): Promise<unknown> =>
      running ? kubelet.run(daemon) : kubelet.end(daemon, row.wish === 'end');
    const struck = Promise.all(kubelets.map((each) => wish(each, this.#daemon))).then(async () => {
      // What comes after the pod is there: a pool that fills again.
      await this.clock.sleep(10 * 60_000, signal);
      throw new Error(`${where}: the daemon never came to it`);
    });
    await Promise.race([this.#killSwitch.killed, struck]);
    await this.clock.hold(() => this.#restart());
    await Promise.all(kubelets.map((each) => wish(each, this.#daemon)));
    await this.#exactly(1 + (running ? count : 0), where);
    // Not even for a while: the tokens see to it, not the sweeper.
    const extra = (this.#cloud?.made() ?? 0) - made - count;
    if (row.effect === 'provider.launch' && this.#cloud && extra > 0) {
      throw new Error(`${where}: ${extra} machines too many were made`);
    }
    for (const kubelet of kubelets) await kubelet.end(this.#daemon, true);
    await this.#exactly(1, `${where}, removed`);
    this.#cloud?.clear();
    this.#outside.clear();
  }

  /** What happens to a pod that runs: whether it goes on in its machine, or is made anew by a kubelet. */
  async suffer({ name, strike }: Incident): Promise<'goes on' | 'made anew'> {
    return await this.clock.run(this.#suffer(name, strike));
  }

  async #suffer(name: string, strike: Incident['strike']): Promise<'goes on' | 'made anew'> {
    const signal = this.#patience(name);
    this.#pods += 1;
    const kubelet = new Kubelet(`pod-${this.#pods}`, this.clock, signal);
    const before = await kubelet.run(this.#daemon);
    const machine = this.#machineOf(before);
    // It runs for a while, and what comes of it has the time to show.
    await this.clock.sleep(60_000, signal);
    await strike({
      sandbox: before,
      clock: this.clock,
      guests: this.#world.guests,
      signal,
      crash: (lose) => this.clock.hold(() => this.#restart(lose)),
    });
    await this.clock.sleep(60_000, signal);
    const after = await kubelet.run(this.#daemon);
    await this.#exactly(2, name);
    const same = after === before && this.#machineOf(after) === machine;
    // What came of it must work on: another pod comes and goes.
    const next = new Kubelet(`pod-${this.#pods}-next`, this.clock, signal);
    await next.run(this.#daemon);
    await this.#exactly(3, `${name}, another pod`);
    for (const each of [next, kubelet]) await each.end(this.#daemon, true);
    await this.#exactly(1, `${name}, removed`);
    this.#cloud?.clear();
    return same ? 'goes on' : 'made anew';
  }

  /** The dead daemon's connections break, its files close, and another one starts. */
  async #restart(lose?: 'journal' | 'all'): Promise<void> {
    const dead = this.#daemon;
    this.#killSwitch.dead = true;
    await this.#world.guests.hangUp();
    dead.journal[Symbol.dispose]();
    if (lose) await this.#world.loseJournal();
    if (lose === 'all') await this.#cloud?.loseLaunches();
    this.#killSwitch = this.#newSwitch();
    this.#daemon = this.#world.start(this.#killSwitch);
  }

  /** So many pods, each with one machine, one network and nothing else; and the untouched one as it was. */
  async #exactly(pods: number, where: string): Promise<void> {
    const signal = this.#patience(where);
    const state = async () => ({
      machines: this.#cloud?.machines().length ?? (await this.#fakeMachines(signal)),
      networks: this.#world.network.attached.size,
      sandboxes: this.#daemon.sandboxes.list().filter(({ ready }) => ready).length,
      listed: this.#daemon.sandboxes.list().length,
      containers: this.#daemon.containers.list().length,
      waiting: this.#daemon.pool.view().reduce((sum, { waiting }) => sum + waiting, 0),
    });
    const wanted = {
      machines: pods + this.#pool,
      networks: pods,
      sandboxes: pods,
      listed: pods,
      containers: pods,
      waiting: this.#pool,
    };
    let last = '';
    const asWanted = async (): Promise<true | undefined> => {
      last = JSON.stringify(await state());
      return last === JSON.stringify(wanted) ? true : undefined;
    };
    try {
      await until(asWanted, { everyMs: 1000, clock: this.clock, signal });
    } catch (error) {
      throw new Error(`${where}: ${last} instead of ${JSON.stringify(wanted)}`, { cause: error });
    }
    const untouched = this.#untouched;
    if (!untouched) return;
    const view = this.#daemon.sandboxes.get(untouched.sandbox);
    if (!view.ready || this.#machineOf(view.id) !== untouched.machine)
      throw new Error(`${where}: the pod that nobody touched has changed`);
  }

  async #fakeMachines(signal: AbortSignal): Promise<number> {
    return (await this.#world.provider.describe({ by: 'tags', tags: {} }, signal)).length;
  }

  /** Fires when too much virtual time has passed. */
  #patience(what: string): AbortSignal {
    const over = new AbortController();
    this.clock.sleep(PATIENCE_MS, over.signal).then(
      () => over.abort(new Error(`${what}: not so after ${PATIENCE_MS / 60_000} minutes`)),
      () => undefined,
    );
    return over.signal;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.clock.run(Promise.resolve(this.#daemon[Symbol.asyncDispose]()));
    await this.#stack.disposeAsync();
  }
}

/** A journal's write is about one pod; all else is about whoever is worked on. */
function concerns(args: readonly unknown[], uids: ReadonlySet<string>): boolean {
  const [, record] = args;
  if (typeof record !== 'object' || record === null || !('podUid' in record)) return true;
  return uids.has(String(record.podUid));
}
