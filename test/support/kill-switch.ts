/**
 * Ends a program in the middle of something, as `kill -9` would: at the n-th thing it does to the outside, before or
 * after the effect, and then nothing it does has any effect any more and nothing answers it.
 */
export class KillSwitch {
  #left: number;
  readonly #when: 'before' | 'after';
  readonly #killed = Promise.withResolvers<void>();
  dead = false;
  /** What was done, in order; the last one is where the program died. */
  readonly trace: string[] = [];

  /** @param n 1: the first effect; Infinity: never. */
  constructor(n: number, when: 'before' | 'after') {
    this.#left = n;
    this.#when = when;
  }

  /** Resolves when the program has died. */
  get killed(): Promise<void> {
    return this.#killed.promise;
  }

  #die(): void {
    this.dead = true;
    this.#killed.resolve();
  }

  /** The same object, whose named methods count as effects. */
  wrap<T extends object>(name: string, target: T, methods: readonly (keyof T & string)[]): T {
    return new Proxy(target, {
      get: (object, key) => {
        const value: unknown = Reflect.get(object, key, object);
        if (typeof value !== 'function') return value;
        const call = (...args: unknown[]): unknown => Reflect.apply(value, object, args);
        return methods.some((method) => method === key) ? this.#effect(`${name}.${String(key)}`, call) : call;
      },
    });
  }

  #effect(name: string, call: (...args: unknown[]) => unknown) {
    return (...args: unknown[]): unknown => {
      if (this.dead) return forever();
      this.trace.push(name);
      this.#left -= 1;
      if (this.#left === 0 && this.#when === 'before') {
        this.#die();
        return forever();
      }
      const last = this.#left === 0;
      const result = call(...args);
      if (!(result instanceof Promise)) {
        if (last) this.#die();
        return result;
      }
      return result.then((value: unknown) => {
        if (last) this.#die();
        return this.dead ? forever() : value;
      });
    };
  }
}

/** Synchronous callers run on, but only in a memory that nobody will look at again. */
function forever(): Promise<never> {
  return new Promise<never>(() => undefined);
}
