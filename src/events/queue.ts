/**
 * Events on their way to one reader. A reader that is slow loses none of the newest: when the queue is full, only the last
 * event of each container stays, which tells all of it. When even those are too many, the queue ends with an error, so
 * that the reader knows that it has to look at everything anew.
 */
import { InfraletError } from '../base/errors.ts';
import { abortable } from '../base/keyed-lock.ts';

export class EventQueue<Event extends { readonly id: string }> {
  readonly #limit: number;
  #waiting: Event[] = [];
  #failure: InfraletError | undefined;
  #news = Promise.withResolvers<void>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(event: Event): void {
    if (this.#failure) return;
    if (this.#waiting.length >= this.#limit) this.#waiting = newestOfEach([...this.#waiting, event]);
    else this.#waiting.push(event);
    if (this.#waiting.length > this.#limit) {
      this.#failure = new InfraletError(
        'RESOURCE_EXHAUSTED',
        `more than ${this.#limit} containers and sandboxes have changed since this reader read last`,
        { hint: 'list all and listen again; events.maxQueued raises the limit' },
      );
      this.#waiting = [];
    }
    this.#news.resolve();
  }

  /** The next one; waits for it. */
  async next(signal: AbortSignal): Promise<Event> {
    for (;;) {
      if (this.#failure) throw this.#failure;
      const event = this.#waiting.shift();
      if (event) return event;
      this.#news = Promise.withResolvers<void>();
      await abortable(this.#news.promise, signal);
    }
  }
}

/** In the order of the last ones. */
function newestOfEach<Event extends { readonly id: string }>(events: readonly Event[]): Event[] {
  const newest = new Map<string, Event>();
  for (const event of events) {
    newest.delete(event.id);
    newest.set(event.id, event);
  }
  return [...newest.values()];
}
