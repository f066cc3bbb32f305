/**
 * containerd's events. containerd 1.7 has one queue with one consumer: two subscriptions would share the events between
 * them. So the agent holds one subscription from the first watcher on, keeps it, and fans out. Whenever events may have
 * been lost (a broken subscription, a watcher that does not read), the watcher gets a Resync in their place.
 */
import type { ClientReadableStream } from '@grpc/grpc-js';
import { backoffMs } from '../base/backoff.ts';
import { errorMessage } from '../base/errors.ts';
import { systemClock } from '../base/time.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Containerd } from './containerd.ts';
import { LIMITS } from './options.ts';

const METHOD = '/runtime.v1.RuntimeService/GetContainerEvents';
const RETRY = { initialMs: LIMITS.resubscribeMs, maxMs: LIMITS.resubscribeMaxMs, factor: 2, jitter: 0.2 };

export interface Watcher {
  event(bytes: Buffer): void;
  resync(): void;
}

export class EventHub {
  readonly #containerd: Containerd;
  readonly #log: Logger;
  readonly #watchers = new Set<Watcher>();
  #running = false;
  #subscribed = false;

  constructor(containerd: Containerd, log: Logger) {
    this.#containerd = containerd;
    this.#log = log;
  }

  /** Adds a watcher; it is told to resync as soon as the subscription stands. Dispose to leave. */
  add(watcher: Watcher, signal: AbortSignal): Disposable {
    this.#watchers.add(watcher);
    if (this.#subscribed) watcher.resync();
    if (!this.#running) {
      this.#running = true;
      void this.#run(signal);
    }
    return { [Symbol.dispose]: () => void this.#watchers.delete(watcher) };
  }

  /** Until the agent ends. */
  async #run(signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted; ) {
      try {
        await this.#containerd.ready(LIMITS.resubscribeMaxMs);
        await this.#subscription(() => {
          failures = 0;
        });
      } catch (error) {
        if (this.#subscribed) this.#log.warn('event subscription to containerd broke', { error: errorMessage(error) });
      }
      this.#subscribed = false;
      failures += 1;
      await systemClock.sleep(backoffMs(RETRY, failures), signal).catch(() => undefined);
    }
  }

  /** Resolves or rejects when the subscription ends. */
  async #subscription(onData: () => void): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const stream: ClientReadableStream<Buffer> = this.#containerd.stream(METHOD, Buffer.alloc(0));
    stream.on('data', (bytes: Buffer) => {
      onData();
      for (const watcher of this.#watchers) watcher.event(bytes);
    });
    stream.on('error', reject);
    stream.on('end', resolve);
    // containerd sends nothing, not even headers, before its first event. Its queue keeps what happens between now and
    // the moment the request arrives, so that reading all statuses from here on misses nothing.
    this.#subscribed = true;
    for (const watcher of this.#watchers) watcher.resync();
    await promise;
  }
}
