/**
 * Machines that their cloud takes back: the notice is used to end the pod's containers in good order. The pod is not ready
 * from the first moment, so that the kubelet starts nothing more in it, and fails with the cloud's word as the reason when
 * its containers have ended, or when what is left of the notice is needed for logs and statuses.
 */
import { errorMessage } from '../base/errors.ts';
import type { SandboxId } from '../base/ids.ts';
import { type Clock, withTimeout } from '../base/time.ts';
import type { GuestEvent } from '../guest/channel.ts';
import type { SandboxRecord } from '../sandbox/record.ts';
import type { Sessions } from '../sandbox/session.ts';

import type { SandboxStore } from '../sandbox/store.ts';
import type { Logger } from '../telemetry/log.ts';
import type { ContainerLogs } from './logs.ts';
import type { ContainerObserver } from './observer.ts';
import { stopInGuest } from './stop.ts';
import type { ContainerStore } from './store.ts';

type Notice = Extract<GuestEvent, { kind: 'interruption' }>;

/** The longest notice of any cloud is two minutes; a machine that promises more is not believed. */
const MAX_NOTICE_MS = 600_000;
/** Compute Engine gives half a minute only: no more than this part of a notice is kept back. */
const RESERVE_PART = 6;

export interface InterruptionDeps {
  readonly sandboxes: SandboxStore;
  readonly store: ContainerStore;
  readonly sessions: Sessions;
  readonly logs: ContainerLogs;
  readonly observer: Pick<ContainerObserver, 'drain' | 'refresh'>;
  readonly reconciler: { fail(id: SandboxId, reason: string): void };
  /** Of the notice, for logs and statuses; milliseconds. */
  readonly reserveMs: number;
  /** For `infralet why`. */
  readonly note: (id: SandboxId, text: string) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Interruptions implements AsyncDisposable {
  readonly #deps: InterruptionDeps;
  readonly #stop = new AbortController();
  readonly #ending = new Map<SandboxId, Promise<void>>();

  constructor(deps: InterruptionDeps) {
    this.#deps = deps;
  }

  /** A machine says it anew over each channel: what is under way goes on. */
  take(id: SandboxId, { action, noticeMs }: Notice): void {
    const { sandboxes, reconciler, clock, log } = this.#deps;
    const record = sandboxes.get(id)?.record;
    if (record?.wanted !== 'ready' || record.state === 'failed' || this.#ending.has(id)) return;
    const left = Math.min(Math.max(noticeMs, 0), MAX_NOTICE_MS);
    const what = /^[a-z-]{1,32}$/.test(action) ? action : 'unknown';
    const reason = record.interruption ?? reasonOf(record, what, left);
    log.warn('a machine is taken back by its cloud', { sandboxId: id, action: what, noticeMs: left });
    // Nobody has been told of it yet: its caller, or the pool, makes another one.
    if (record.state !== 'ready') {
      reconciler.fail(id, reason);
      return;
    }
    if (record.interruption === undefined) {
      sandboxes.update(id, { interruption: reason }, { interrupted: clock.now() });
    }
    const ending = this.#end(id, reason, left).finally(() => this.#ending.delete(id));
    this.#ending.set(id, ending);
  }

  async #end(id: SandboxId, reason: string, leftMs: number): Promise<void> {
    const { store, sessions, observer, reconciler, note, log } = this.#deps;
    const graceMs = Math.floor(leftMs - Math.min(this.#deps.reserveMs, leftMs / RESERVE_PART));
    const running = store.ofSandbox(id).filter(({ record }) => record.state === 'CONTAINER_RUNNING');
    note(id, `${reason}; stopping ${running.length} containers with ${Math.round(graceMs / 1000)} s of grace`);
    const channel = sessions.get(id);
    using limit = withTimeout(this.#stop.signal, leftMs, 'ending the containers');
    try {
      if (channel) {
        await Promise.all(running.map((entry) => stopInGuest(this.#deps, entry, graceMs, channel, limit)));
        await observer.drain(id, limit);
      }
    } catch (error) {
      // Another daemon goes on: the machine tells it again.
      if (this.#stop.signal.aborted) return;
      log.warn('not all containers ended in good order', { sandboxId: id, reason: errorMessage(error) });
    }
    reconciler.fail(id, reason);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#ending.values());
  }
}

function reasonOf({ purchase }: SandboxRecord, action: string, leftMs: number): string {
  const machine = purchase ? `${purchase.market} machine (${purchase.type}, ${purchase.zone})` : 'machine';
  return `the cloud takes the pod's ${machine} back: ${action} in ${Math.round(leftMs / 1000)} s`;
}
