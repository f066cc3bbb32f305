/**
 * How many machines start at once, from their launch until their pod is ready: more would only slow each other down until
 * the first are as late as the last, and on few processors until none answers in time.
 *
 * Machines for a pool start only in places that no pod takes, so that no pod ever waits for one. Pods whose machine is up
 * already have places of their own: they need too little to stand in line with those who need a whole start, and nothing
 * for a pool begins while they are at it.
 */
import PQueue from 'p-queue';
import type { SandboxId } from '../base/ids.ts';

export type StartKind = 'pod' | 'claimed' | 'refill';

interface Place {
  readonly entered: Promise<void>;
  readonly leave: () => void;
}

export class StartupGate {
  readonly #atOnce: number;
  readonly #queues: Readonly<Record<StartKind, PQueue>>;
  readonly #places = new Map<SandboxId, Place>();

  constructor(atOnce: number) {
    this.#atOnce = atOnce;
    const queue = (): PQueue => new PQueue({ concurrency: atOnce });
    this.#queues = { pod: queue(), claimed: queue(), refill: queue() };
    // Each change of what pods take changes what they leave over.
    for (const kind of ['pod', 'claimed'] as const) {
      for (const event of ['add', 'next'] as const) {
        this.#queues[kind].addEventListener(event, () => this.#makeRoom());
      }
    }
  }

  /** Waits for a place, in order of arrival; who is inside or waits already has one place, however often it asks. */
  async enter(id: SandboxId, kind: StartKind, signal: AbortSignal): Promise<void> {
    const known = this.#places.get(id);
    if (known) return await known.entered;
    const entered = Promise.withResolvers<void>();
    const left = Promise.withResolvers<void>();
    const place: Place = { entered: entered.promise, leave: left.resolve };
    this.#places.set(id, place);
    const turn = this.#queues[kind].add(
      () => {
        entered.resolve();
        return left.promise;
      },
      { signal },
    );
    // Rejects only when the signal fires while it still waits.
    turn.catch((error: unknown) => {
      if (this.#places.get(id) === place) this.#places.delete(id);
      entered.reject(error);
      this.#makeRoom();
    });
    await entered.promise;
  }

  /** Gives the place to the next one; nothing happens when there is none to give. */
  leave(id: SandboxId): void {
    const place = this.#places.get(id);
    this.#places.delete(id);
    place?.leave();
  }

  /** Places taken, and how many wait for one, by kind. */
  get figures(): Readonly<Record<StartKind, { readonly inside: number; readonly waiting: number }>> {
    const of = (queue: PQueue) => ({ inside: queue.pending, waiting: queue.size });
    const { pod, claimed, refill } = this.#queues;
    return { pod: of(pod), claimed: of(claimed), refill: of(refill) };
  }

  #makeRoom(): void {
    const { pod, claimed, refill } = this.#queues;
    const room = this.#atOnce - pod.pending - pod.size;
    if (room < 1 || claimed.pending + claimed.size > 0) {
      refill.pause();
      return;
    }
    refill.concurrency = room;
    refill.start();
  }
}
