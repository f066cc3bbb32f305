/** A driver whose calls are counted by class and outcome. */
import { performance } from 'node:perf_hooks';
import type { ApiClass, CloudDriver } from './driver.ts';

export interface CallCount {
  readonly class: ApiClass;
  /** `ok`, `aborted` (nobody waits any more), or the kind of the fault. */
  readonly outcome: string;
  readonly count: number;
  readonly seconds: number;
}

/** Since it was made. The kinds of outcomes bound its size. */
export class CallCounts {
  readonly #counts = new Map<string, CallCount>();

  get all(): readonly CallCount[] {
    return [...this.#counts.values()];
  }

  add(apiClass: ApiClass, outcome: string, seconds: number): void {
    const key = `${apiClass} ${outcome}`;
    const before = this.#counts.get(key) ?? { count: 0, seconds: 0 };
    const sum = { count: before.count + 1, seconds: before.seconds + seconds };
    this.#counts.set(key, { class: apiClass, outcome, ...sum });
  }
}

export function countedDriver(driver: CloudDriver, counts: CallCounts): CloudDriver {
  const counted = async <T>(apiClass: ApiClass, signal: AbortSignal, call: () => Promise<T>): Promise<T> => {
    const began = performance.now();
    const end = (outcome: string): void => counts.add(apiClass, outcome, (performance.now() - began) / 1000);
    try {
      const result = await call();
      end('ok');
      return result;
    } catch (error) {
      end(signal.aborted ? 'aborted' : driver.classify(error).kind);
      throw error;
    }
  };
  const { power, leftovers, custom, volumes } = driver;
  return {
    name: driver.name,
    maxPerCall: driver.maxPerCall,
    catalogue: (signal) => counted('other', signal, () => driver.catalogue(signal)),
    launch: (call, signal) => counted('launch', signal, () => driver.launch(call, signal)),
    list: (tags, signal) => counted('describe', signal, () => driver.list(tags, signal)),
    terminate: (ids, signal) => counted('terminate', signal, () => driver.terminate(ids, signal)),
    console: (id, maxBytes, signal) => counted('other', signal, () => driver.console(id, maxBytes, signal)),
    classify: (error) => driver.classify(error),
    directPods: driver.directPods ?? false,
    podLink: (machine) => driver.podLink(machine),
    doctor: (signal) => driver.doctor(signal),
    [Symbol.asyncDispose]: () => driver[Symbol.asyncDispose](),
    ...(custom ? { custom: (need) => custom.call(driver, need) } : {}),
    ...(power
      ? {
          power: {
            suspend: (ids, signal) => counted('other', signal, () => power.suspend(ids, signal)),
            resume: (ids, signal) => counted('other', signal, () => power.resume(ids, signal)),
          },
        }
      : {}),
    ...(volumes
      ? {
          volumes: {
            find: (volume, signal) => counted('describe', signal, () => volumes.find(volume, signal)),
            attach: (id, volume, signal) => counted('other', signal, () => volumes.attach(id, volume, signal)),
            detach: (id, volume, signal) => counted('other', signal, () => volumes.detach(id, volume, signal)),
          },
        }
      : {}),
    ...(leftovers
      ? {
          leftovers: {
            list: (tags, signal) => counted('describe', signal, () => leftovers.list(tags, signal)),
            remove: (leftover, signal) => counted('terminate', signal, () => leftovers.remove(leftover, signal)),
          },
        }
      : {}),
  };
}
