/** Tells readers of every change of containers and sandboxes, each with the whole pod as it is after the change. */
import type { SandboxId } from '../base/ids.ts';
import type { Clock } from '../base/time.ts';
import type { ContainerStore } from '../container/store.ts';
import type { ContainerStatus__Output } from '../gen/runtime/v1/ContainerStatus.ts';
import type { SandboxView } from '../sandbox/service.ts';
import type { SandboxEntry, SandboxStore } from '../sandbox/store.ts';
import { containerEvents, type EventKind, sandboxEvents } from './changes.ts';
import { EventQueue } from './queue.ts';

export interface LifecycleEvent {
  /** Of the container, or of the sandbox itself. */
  readonly id: string;
  readonly kind: EventKind;
  /** Nanoseconds since the epoch; later than that of every event before. */
  readonly at: string;
  readonly sandbox: SandboxView;
  readonly containers: readonly ContainerStatus__Output[];
}

export interface EventService {
  /** From now on; dispose to leave. */
  subscribe(): EventSubscription;
  /**
   * Now, in nanoseconds since the epoch, and later than everything that was stamped before: an event, and a status that
   * is read after it, are never in the wrong order.
   */
  stamp(): string;
}

export interface EventSubscription extends Disposable {
  /** Throws RESOURCE_EXHAUSTED when events had to be dropped. */
  next(signal: AbortSignal): Promise<LifecycleEvent>;
}

export interface EventFeedDeps {
  readonly sandboxes: SandboxStore;
  readonly containers: ContainerStore;
  readonly view: (entry: SandboxEntry) => SandboxView;
  /** Of all containers of a sandbox. */
  readonly statuses: (id: SandboxId) => readonly ContainerStatus__Output[];
  readonly maxQueued: number;
  readonly clock: Clock;
}

export class EventFeed implements EventService {
  readonly #deps: EventFeedDeps;
  readonly #queues = new Set<EventQueue<LifecycleEvent>>();
  #last = 0n;

  constructor(deps: EventFeedDeps) {
    this.#deps = deps;
    deps.containers.onChange((before, after) => {
      const entry = after ?? before;
      const sandbox = entry && deps.sandboxes.get(entry.record.sandboxId);
      if (sandbox) this.#tell(entry.record.id, containerEvents(before?.record, after?.record), sandbox);
    });
    deps.sandboxes.onChange((before, after) => {
      const entry = after ?? before;
      if (entry) this.#tell(entry.record.id, sandboxEvents(before?.record, after?.record), entry, after === undefined);
    });
  }

  stamp(): string {
    const now = BigInt(Math.round(this.#deps.clock.now() * 1000)) * 1000n;
    this.#last = now > this.#last ? now : this.#last + 1n;
    return this.#last.toString();
  }

  #tell(id: string, kinds: readonly EventKind[], entry: SandboxEntry, gone = false): void {
    if (kinds.length === 0 || this.#queues.size === 0) return;
    const view = this.#deps.view(entry);
    const sandbox = gone ? { ...view, ready: false, ips: [] } : view;
    const containers = this.#deps.statuses(view.id);
    for (const kind of kinds) {
      const event: LifecycleEvent = { id, kind, at: this.stamp(), sandbox, containers };
      for (const queue of this.#queues) queue.push(event);
    }
  }

  subscribe(): EventSubscription {
    const queue = new EventQueue<LifecycleEvent>(this.#deps.maxQueued);
    this.#queues.add(queue);
    return {
      next: (signal) => queue.next(signal),
      [Symbol.dispose]: () => void this.#queues.delete(queue),
    };
  }
}
