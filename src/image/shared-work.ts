/**
 * Work that several callers want at the same time, done once. A caller that gives up leaves; the work goes on for the others and
 * is stopped when the last one left.
 */
import { abortable } from '../base/keyed-lock.ts';

interface Flight<T> {
  readonly result: Promise<T>;
  readonly stop: AbortController;
  waiting: number;
}

export class SharedWork<T> {
  readonly #flights = new Map<string, Flight<T>>();
  readonly #running = new Set<Promise<unknown>>();

  /** Joins the work of `key`, or starts it; `work`'s own signal fires when nobody waits any more. */
  async join(key: string, work: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    const flight = this.#flights.get(key) ?? this.#start(key, work);
    flight.waiting += 1;
    try {
      return await abortable(flight.result, signal);
    } finally {
      flight.waiting -= 1;
      if (flight.waiting === 0) this.#end(key, flight);
    }
  }

  #start(key: string, work: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const stop = new AbortController();
    const result = work(stop.signal);
    const flight = { result, stop, waiting: 0 };
    this.#flights.set(key, flight);
    const running = result
      .catch(() => undefined)
      .finally(() => {
        this.#running.delete(running);
        this.#end(key, flight);
      });
    this.#running.add(running);
    return flight;
  }

  /** Whoever asks from now on starts anew, also while the stopped work still winds down. */
  #end(key: string, flight: Flight<T>): void {
    if (this.#flights.get(key) === flight) this.#flights.delete(key);
    flight.stop.abort();
  }

  /** Stops all work and waits for it. */
  async stop(reason: unknown): Promise<void> {
    for (const flight of this.#flights.values()) flight.stop.abort(reason);
    await Promise.allSettled(this.#running);
  }
}
