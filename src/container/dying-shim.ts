/**
 * containerd 1.7 fails to stop or to remove a container whose process is ending at that very moment: the shim has closed its
 * connection and containerd has not heard of the end yet. The same call a moment later succeeds.
 */
import { InfraletError } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';

const CLOSED = /ttrpc: closed/;
const TRIES = 5;
/** containerd reaps a shim within some tens of milliseconds, under emulation within some hundreds. */
const PAUSE_MS = 200;

export async function pastDyingShim<T>(call: () => Promise<T>, clock: Clock, signal: AbortSignal): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await call();
    } catch (error) {
      if (attempt === TRIES || !CLOSED.test(InfraletError.from(error).message)) throw error;
    }
    await clock.sleep(PAUSE_MS, signal);
  }
}
