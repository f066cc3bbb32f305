/** Collects single wishes for a moment and carries them out together. */
import { abortable } from '../base/keyed-lock.ts';
import { type Clock, elapsed } from '../base/time.ts';

export interface BatchWindow {
  /** A batch is closed when nothing was added for this long, milliseconds. */
  readonly idleMs: number;
  /** A batch is closed this long after its first item, whatever comes, milliseconds. */
  readonly maxMs: number;
  readonly maxItems: number;
}

interface Open<Item, Result> {
  readonly items: { readonly item: Item; readonly result: PromiseWithResolvers<Result> }[];
  readonly begun: number;
  /** When it closes unless another item comes. */
  idleUntil: number;
  readonly closed: AbortController;
}

export class Batcher<Item, Result> {
  readonly #window: BatchWindow;
  readonly #clock: Clock;
  readonly #run: (key: string, items: readonly Item[]) => Promise<readonly Result[]>;
  readonly #open = new Map<string, Open<Item, Result>>();

  /** @param run carries out one batch: one result per item, in their order; an error fails all of them. */
  constructor(
    window: BatchWindow,
    clock: Clock,
    run: (key: string, items: readonly Item[]) => Promise<readonly Result[]>,
  ) {
    this.#window = window;
    this.#clock = clock;
    this.#run = run;
  }

  /**
   * Items with the same key share a batch. A caller that gives up leaves its item in: the work may be done already.
   * @param idleMs how long to wait for more after this item, milliseconds.
   */
  async add(key: string, item: Item, signal: AbortSignal, idleMs = this.#window.idleMs): Promise<Result> {
    signal.throwIfAborted();
    const result = Promise.withResolvers<Result>();
    // A result that nobody waits for any more must not become an unhandled rejection.
    result.promise.catch(() => undefined);
    const now = this.#clock.now();
    let open = this.#open.get(key);
    if (!open) {
      open = { items: [], begun: now, idleUntil: now, closed: new AbortController() };
      this.#open.set(key, open);
    }
    open.items.push({ item, result });
    open.idleUntil = now + idleMs;
    // With its item in it: on a busy machine the window may have passed by the next line.
    if (open.items.length === 1) void this.#watch(key, open);
    if (open.items.length >= this.#window.maxItems) this.#close(key, open);
    return await abortable(result.promise, signal);
  }

  /** Closes the batch when its time has come; every item that comes moves the end of the pause. */
  async #watch(key: string, open: Open<Item, Result>): Promise<void> {
    const { maxMs } = this.#window;
    while (!open.closed.signal.aborted) {
      const passed = elapsed(this.#clock, open.begun);
      const left = Math.min(open.idleUntil - this.#clock.now(), maxMs - passed);
      if (left <= 0) this.#close(key, open);
      else await this.#clock.sleep(left, open.closed.signal).catch(() => undefined);
    }
  }

  #close(key: string, open: Open<Item, Result>): void {
    if (this.#open.get(key) === open) this.#open.delete(key);
    if (open.closed.signal.aborted) return;
    open.closed.abort();
    void this.#carryOut(key, open);
  }

  async #carryOut(key: string, open: Open<Item, Result>): Promise<void> {
    try {
      const results = await this.#run(
        key,
        open.items.map(({ item }) => item),
      );
      open.items.forEach(({ result }, index) => {
        const value = results[index];
        if (value === undefined) result.reject(new Error(`the batch ${key} left an item without a result`));
        else result.resolve(value);
      });
    } catch (error) {
      for (const { result } of open.items) result.reject(error);
    }
  }
}
