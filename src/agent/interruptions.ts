/**
 * Word of a cloud that it takes the machine back: EC2's two minutes before a spot instance's end, Compute Engine's half minute
 * before that of a spot or preemptible VM. Whoever watches the machine is told, also who comes later.
 */
import { errorMessage } from '../base/errors.ts';
import { systemClock } from '../base/time.ts';
import type { Interruption } from '../gen/infralet/agent/v1/Interruption.ts';
import type { Logger } from '../telemetry/log.ts';
import { type Metadata, openMetadata } from './metadata.ts';
import { LIMITS } from './options.ts';

/** What Compute Engine promises; it does not say when it began. */
const GCE_NOTICE_MS = 30_000;
/** Compute Engine answers when the value changes, or after this many seconds. */
const GCE_WAIT_SECONDS = 5;

interface Notice {
  readonly action: string;
  /** By `performance.now()`, which no change of the clock moves. */
  readonly endsAt: number;
}

export class Interruptions {
  readonly #listeners = new Set<(interruption: Interruption) => void>();
  #notice: Notice | undefined;

  /** Told at once when the notice is there already. Dispose to leave. */
  listen(listener: (interruption: Interruption) => void): Disposable {
    this.#listeners.add(listener);
    if (this.#notice) listener(message(this.#notice));
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  #tell(notice: Notice, log: Logger): void {
    this.#notice = notice;
    const told = message(notice);
    log.warn('the cloud takes this machine back', { action: notice.action, noticeMs: told.noticeMs });
    for (const listener of this.#listeners) listener(told);
  }

  /** Asks until there is a notice; returns at once where there never will be one. @param base of the metadata service. */
  async watch(base: string, log: Logger, signal: AbortSignal): Promise<void> {
    for (;;) {
      try {
        const metadata = await openMetadata(base, signal);
        const notice = metadata.kind === 'ec2' ? await ofEc2(metadata, signal) : await ofGce(metadata, signal);
        if (notice) this.#tell(notice, log);
        return;
      } catch (error) {
        signal.throwIfAborted();
        log.warn('the metadata service does not say whether this machine is to end', { error: errorMessage(error) });
        await systemClock.sleep(LIMITS.interruptionPollMs, signal);
      }
    }
  }
}

async function ofEc2(metadata: Metadata, signal: AbortSignal): Promise<Notice | undefined> {
  if ((await metadata.get('meta-data/instance-life-cycle', signal)) !== 'spot') return undefined;
  for (;;) {
    const text = await metadata.get('meta-data/spot/instance-action', signal);
    if (text !== undefined) {
      const { action, time } = JSON.parse(text) as { readonly action?: unknown; readonly time?: unknown };
      const left = Date.parse(String(time)) - Date.now();
      // One that cannot be read is a notice all the same.
      return { action: String(action), endsAt: performance.now() + (Number.isFinite(left) ? left : 0) };
    }
    await systemClock.sleep(LIMITS.interruptionPollMs, signal);
  }
}

async function ofGce(metadata: Metadata, signal: AbortSignal): Promise<Notice | undefined> {
  if ((await metadata.get('scheduling/preemptible', signal)) !== 'TRUE') return undefined;
  // The first answer is the value as it is, the others wait for its change: what changes between two is seen by the next.
  for (let wait = ''; ; wait = `?wait_for_change=true&timeout_sec=${GCE_WAIT_SECONDS}`) {
    if ((await metadata.get(`preempted${wait}`, signal, LIMITS.interruptionWaitMs)) === 'TRUE') {
      return { action: 'terminate', endsAt: performance.now() + GCE_NOTICE_MS };
    }
  }
}

function message({ action, endsAt }: Notice): { readonly action: string; readonly noticeMs: number } {
  return { action, noticeMs: Math.max(0, Math.round(endsAt - performance.now())) };
}
