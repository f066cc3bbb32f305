/**
 * Ends a program in the middle of something, as `kill -9` would: at the n-th thing it does to the outside, before or
 * after the effect, and then nothing it does has any effect any more and nothing answers it.
 */
import type { Clock } from '../../src/base/time.ts';

/** Which effects count: by their name, and by what they were called with. */
export type Select = (name: string, args: readonly unknown[]) => boolean;

/** What an outside that fails makes of a call. */
export type Meet = (name: string, args: readonly unknown[], call: () => unknown) => unknown;

export class KillSwitch {
  #left: number;
  #when: 'before' | 'after';
  #select: Select;
  readonly #meet: Meet;
  #killed = Promise.withResolvers<void>();
  dead = false;
  /** What was done, in order; the last one is where the program died. */
  readonly trace: string[] = [];

  /** @param n 1: the first effect; Infinity: never. */
  constructor(n: number, when: 'before' | 'after', meet: Meet = (_name, _args, call) => call()) {
    this.#left = n;
    this.#when = when;
    this.#select = () => true;
    this.#meet = meet;
  }

  /** The program dies at the n-th of these effects from now on. */
  arm(n: number, when: 'before' | 'after', select: Select): void {
    this.#left = n;
    this.#when = when;
    this.#select = select;
  }

  /** Resolves when the program has died. */
  get killed(): Promise<void> {
    return this.#killed.promise;
  }

  #die(): void {
    this.dead = true;
    this.#killed.resolve();
  }

  /** For a program that must not go on once it is dead: whoever sleeps then sleeps for ever. */
  clock(clock: Clock): Clock {
    return {
      now: () => clock.now(),
      sleep: async (ms, signal) => {
        if (this.dead) return await forever();
        await clock.sleep(ms, signal);
        if (this.dead) await forever();
      },
    };
  }

  /**
   * The same object, whose named methods count as effects.
   * @param nameOf the effect's name, from the method and its arguments.
   */
  wrap<T extends object>(
    name: string,
    target: T,
    methods: readonly (keyof T & string)[],
    nameOf: (method: string, args: readonly unknown[]) => string = (method) => method,
  ): T {
    return new Proxy(target, {
      get: (object, key) => {
        const value: unknown = Reflect.get(object, key, object);
        if (typeof value !== 'function') return value;
        const call = (...args: unknown[]): unknown => Reflect.apply(value, object, args);
        if (!methods.some((method) => method === key)) return call;
        return (...args: unknown[]) => this.#effect(`${name}.${nameOf(String(key), args)}`, args, () => call(...args));
      },
    });
  }

  #effect(name: string, args: readonly unknown[], call: () => unknown): unknown {
    if (this.dead) return forever();
    this.trace.push(name);
    const counts = this.#select(name, args);
    if (counts) this.#left -= 1;
    const last = counts && this.#left === 0;
    if (last && this.#when === 'before') {
      this.#die();
      return forever();
    }
    let result: unknown;
    try {
      result = this.#meet(name, args, call);
    } catch (error) {
      if (!last) throw error;
      this.#die();
      return forever();
    }
    if (!(result instanceof Promise)) {
      if (last) this.#die();
      return result;
    }
    const ended = (): boolean => {
      if (last) this.#die();
      return this.dead;
    };
    return result.then(
      (value: unknown) => (ended() ? forever() : value),
      (error: unknown) => (ended() ? forever() : Promise.reject(error)),
    );
  }
}

/** Synchronous callers run on, but only in a memory that nobody will look at again. */
function forever(): Promise<never> {
  return new Promise<never>(() => undefined);
}
