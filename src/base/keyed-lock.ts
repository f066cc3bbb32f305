/** A mutex per key, in order of arrival; `await using` releases it. */
export class KeyedLock<Key> {
  readonly #tails = new Map<Key, Promise<void>>();

  async acquire(key: Key, signal: AbortSignal): Promise<Disposable> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const tail = before.then(() => released);
    this.#tails.set(key, tail);
    const free = (): void => {
      release();
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    };
    try {
      await abortable(before, signal);
    } catch (error) {
      free();
      throw error;
    }
    return { [Symbol.dispose]: free };
  }
}

/** Waits for `promise`, or rejects with the signal's reason, whichever is first. The promise itself goes on. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
