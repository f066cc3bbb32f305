/**
 * The open channels, one per sandbox: a session is a channel with the loops that live as long as it does (events,
 * heartbeats, the guest's way to the image service). When any of them ends, the whole session ends and the reconciler
 * makes a new one.
 */
import type { Duplex } from 'node:stream';
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { SandboxId } from '../base/ids.ts';
import type { Clock } from '../base/time.ts';
import type { AgentChannel, GuestEvent, Sampling } from '../guest/channel.ts';
import type { Logger } from '../telemetry/log.ts';

export interface SessionHooks {
  /** A container event, a sample, or the advice to read all statuses anew (also right after the session began). */
  onEvent(id: SandboxId, event: GuestEvent): void;
  /** A connection of the guest's containerd to the image service. */
  onImageConnection(id: SandboxId, socket: Duplex): void;
  /** The session has ended; the channel is closed. */
  onEnd(id: SandboxId, reason: string): void;
}

/** So many in a row may fail before a machine ends itself. */
const RENEWALS_PER_LEASE = 5;

/** Heartbeats in a row; the one after them ends the session. */
const MISSED_BEATS = 4;

interface Session {
  readonly channel: AgentChannel;
  readonly stop: AbortController;
  readonly loops: Promise<void>;
}

export class Sessions implements AsyncDisposable {
  readonly #open = new Map<SandboxId, Session>();
  readonly #hooks: SessionHooks;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #heartbeatMs: number;
  readonly #sampling: Sampling;
  readonly #leaseMs: number;
  readonly #waitMs: number;
  readonly #waiting = new Map<SandboxId, Set<(channel: AgentChannel) => void>>();

  constructor(options: {
    readonly hooks: SessionHooks;
    readonly clock: Clock;
    readonly log: Logger;
    readonly heartbeatMs: number;
    readonly sampling: Sampling;
    /** Of machines that are paid for, milliseconds; 0: they live for ever. */
    readonly leaseMs: number;
    /** How long a request waits for a channel that is being made anew, milliseconds. */
    readonly waitMs: number;
  }) {
    this.#hooks = options.hooks;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#heartbeatMs = options.heartbeatMs;
    this.#sampling = options.sampling;
    this.#leaseMs = options.leaseMs;
    this.#waitMs = options.waitMs;
  }

  /** How many are open. */
  get size(): number {
    return this.#open.size;
  }

  get(id: SandboxId): AgentChannel | undefined {
    return this.#open.get(id)?.channel;
  }

  /** The channel, which may be in the making after a restart or a cut. UNAVAILABLE when it is not there in time. */
  async opened(id: SandboxId, signal: AbortSignal): Promise<AgentChannel> {
    const open = this.get(id);
    if (open) return open;
    const { promise, resolve } = Promise.withResolvers<AgentChannel>();
    const waiting = this.#waiting.get(id) ?? new Set();
    this.#waiting.set(id, waiting.add(resolve));
    const over = new AbortController();
    const late = this.#clock.sleep(this.#waitMs, AbortSignal.any([signal, over.signal]));
    try {
      const channel = await Promise.race([promise, late]);
      if (channel) return channel;
    } finally {
      over.abort();
      waiting.delete(resolve);
      if (waiting.size === 0) this.#waiting.delete(id);
    }
    throw new InfraletError('UNAVAILABLE', `the channel to the machine of pod sandbox ${id} is not open`, {
      hint: `it is being made again; see: infralet describe ${id}`,
    });
  }

  /** Fires, with the reason, when the session that is open now ends; undefined when there is none. */
  ended(id: SandboxId): AbortSignal | undefined {
    return this.#open.get(id)?.stop.signal;
  }

  /** Takes over a channel; the one before it, if any, is ended. */
  async start(id: SandboxId, channel: AgentChannel): Promise<void> {
    await this.end(id, 'replaced by a new channel');
    const stop = new AbortController();
    const loops = this.#run(id, channel, stop);
    this.#open.set(id, { channel, stop, loops });
    for (const resolve of this.#waiting.get(id) ?? []) resolve(channel);
    this.#hooks.onEvent(id, { kind: 'resync' });
  }

  async #run(id: SandboxId, channel: AgentChannel, stop: AbortController): Promise<void> {
    const reason = await Promise.race([
      this.#watch(id, channel, stop.signal),
      channel
        .serveIncoming('images', (socket) => this.#hooks.onImageConnection(id, socket), stop.signal)
        .then(() => 'the image listener ended', errorMessage),
      this.#watchdog(id, stop.signal),
      ...(this.#leaseMs === 0 ? [] : [this.#keepLease(channel, stop.signal)]),
    ]);
    stop.abort(lost(id, reason));
    if (this.#open.get(id)?.channel === channel) this.#open.delete(id);
    await channel[Symbol.asyncDispose]();
    this.#hooks.onEnd(id, reason);
  }

  /** Looks of the watchdog since something was heard: clocks jump, looks do not. */
  readonly #silent = new Map<SandboxId, number>();

  async #watch(id: SandboxId, channel: AgentChannel, signal: AbortSignal): Promise<string> {
    try {
      for await (const event of channel.watch(this.#heartbeatMs, signal, this.#sampling)) {
        this.#silent.set(id, 0);
        if (event.kind !== 'heartbeat') this.#hooks.onEvent(id, event);
      }
      return 'the event stream ended';
    } catch (error) {
      return errorMessage(error);
    }
  }

  /** A silent peer does not close its connection: three missed heartbeats end the session. */
  async #watchdog(id: SandboxId, signal: AbortSignal): Promise<string> {
    this.#silent.set(id, 0);
    try {
      for (;;) {
        await this.#clock.sleep(this.#heartbeatMs, signal);
        const silent = (this.#silent.get(id) ?? 0) + 1;
        this.#silent.set(id, silent);
        if (silent > MISSED_BEATS) return `no heartbeat for ${silent * this.#heartbeatMs} ms`;
      }
    } catch {
      return 'closed';
    } finally {
      this.#silent.delete(id);
    }
  }

  /** Renews the machine's lease while the session lasts; a renewal that fails is made up for by the next one. */
  async #keepLease(channel: AgentChannel, signal: AbortSignal): Promise<string> {
    const everyMs = Math.ceil(this.#leaseMs / RENEWALS_PER_LEASE);
    try {
      for (;;) {
        await channel.renewLease(this.#leaseMs, { signal, timeoutMs: everyMs }).catch((error: unknown) => {
          signal.throwIfAborted();
          this.#log.warn('a lease could not be renewed', { reason: errorMessage(error) });
        });
        await this.#clock.sleep(everyMs, signal);
      }
    } catch {
      return 'closed';
    }
  }

  async end(id: SandboxId, reason: string): Promise<void> {
    const session = this.#open.get(id);
    if (!session) return;
    this.#open.delete(id);
    this.#log.debug('session ends', { sandboxId: id, reason });
    session.stop.abort(lost(id, reason));
    await session.loops;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#open.keys()].map((id) => this.end(id, 'the daemon stops')));
  }
}

function lost(id: SandboxId, reason: string): InfraletError {
  return new InfraletError('UNAVAILABLE', `the channel to the machine of sandbox ${id} was lost: ${reason}`);
}
