/**
 * How many machines start at once, from their launch until their pod is ready: more would only slow each other down until
 * the first are as late as the last, and on few processors until none answers in time.
 */
import PQueue from 'p-queue';
import type { SandboxId } from '../base/ids.ts';

export class StartupGate {
  readonly #queue: PQueue;
  readonly #inside = new Map<SandboxId, () => void>();

  constructor(atOnce: number) {
    this.#queue = new PQueue({ concurrency: atOnce });
  }

  /** Waits for a place, in order of arrival; who is inside already stays there. */
  async enter(id: SandboxId, signal: AbortSignal): Promise<void> {
    if (this.#inside.has(id)) return;
    const entered = Promise.withResolvers<void>();
    const place = this.#queue.add(
      () => {
        const left = Promise.withResolvers<void>();
        this.#inside.set(id, left.resolve);
        entered.resolve();
        return left.promise;
      },
      { signal },
    );
    // Rejects only when the signal fires while it still waits.
    place.catch(entered.reject);
    await entered.promise;
  }

  /** Gives the place to the next one; nothing happens when there is none to give. */
  leave(id: SandboxId): void {
    const left = this.#inside.get(id);
    this.#inside.delete(id);
    left?.();
  }
}
