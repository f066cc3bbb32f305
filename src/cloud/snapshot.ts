/**
 * The one reader of a cloud's machine list. However many pods wait for their machines, the list is read once per interval
 * and everybody looks at the same copy. A machine that was just made is shown before the list knows of it: clouds answer
 * reads from copies that lag behind.
 */
import { abortable } from '../base/keyed-lock.ts';
import { type Clock, elapsed } from '../base/time.ts';
import type { CloudMachine } from './driver.ts';

export class MachineSnapshot {
  readonly #read: (signal: AbortSignal) => Promise<readonly CloudMachine[]>;
  readonly #clock: Clock;
  readonly #everyMs: number;
  readonly #lagMs: number;
  readonly #stop: AbortSignal;
  #machines: ReadonlyMap<string, CloudMachine> = new Map();
  #readAt = Number.NEGATIVE_INFINITY;
  #reading: Promise<void> | undefined;
  /** Made by us, with the time: shown until the list has them, or until it must have had them. */
  readonly #made = new Map<string, { readonly machine: CloudMachine; readonly at: number }>();

  constructor(options: {
    readonly read: (signal: AbortSignal) => Promise<readonly CloudMachine[]>;
    /** Least time between two reads, milliseconds. */
    readonly everyMs: number;
    /** How long a list may lag behind a launch, milliseconds. */
    readonly lagMs: number;
    readonly clock: Clock;
    /** Ends reads that are under way when the provider is closed. */
    readonly stop: AbortSignal;
  }) {
    this.#read = options.read;
    this.#everyMs = options.everyMs;
    this.#lagMs = options.lagMs;
    this.#clock = options.clock;
    this.#stop = options.stop;
  }

  /** All machines, no older than the interval. */
  async get(signal: AbortSignal): Promise<ReadonlyMap<string, CloudMachine>> {
    if (elapsed(this.#clock, this.#readAt) >= this.#everyMs) {
      this.#reading ??= this.#refresh().finally(() => {
        this.#reading = undefined;
      });
      await abortable(this.#reading, signal);
    }
    return this.#machines;
  }

  made(machines: readonly CloudMachine[]): void {
    const at = this.#clock.now();
    for (const machine of machines) this.#made.set(machine.id, { machine, at });
    this.#machines = new Map([...this.#machines, ...machines.map((machine) => [machine.id, machine] as const)]);
  }

  /** What was terminated is not shown again, whatever a lagging list says. */
  ended(ids: readonly string[], reason: string): void {
    const next = new Map(this.#machines);
    for (const id of ids) {
      this.#made.delete(id);
      const known = next.get(id);
      if (known) next.set(id, { ...known, state: 'terminated', reason });
    }
    this.#machines = next;
  }

  async #refresh(): Promise<void> {
    const startedAt = this.#clock.now();
    const found = new Map((await this.#read(this.#stop)).map((machine) => [machine.id, machine] as const));
    for (const [id, { machine, at }] of this.#made) {
      if (found.has(id) || startedAt - at > this.#lagMs) this.#made.delete(id);
      else found.set(id, machine);
    }
    // As it is now: what was ended while the list was being read is ended.
    for (const [id, machine] of this.#machines) {
      const shown = found.get(id);
      // A list that lags may show it running again.
      if (machine.state === 'terminated' && shown && shown.state !== 'terminated') found.set(id, machine);
    }
    this.#machines = found;
    this.#readAt = startedAt;
  }
}
