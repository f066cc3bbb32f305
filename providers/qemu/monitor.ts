/**
 * Watches one running machine: keeps the control connection, notices the guest's shutdown and the process's death, saves
 * the console before it is lost and writes the reason down. One per machine, for a child of this daemon as well as for a
 * machine found again after a restart.
 */
import { isAbortError } from '../../src/base/errors.ts';
import { abortable, KeyedLock } from '../../src/base/keyed-lock.ts';
import { isAlive, type ProcessIdentity, signalProcess } from '../../src/base/process-identity.ts';
import type { Clock } from '../../src/base/time.ts';
import type { Logger } from '../../src/telemetry/log.ts';
import { consoleText, drainConsole, savedConsole } from './console.ts';
import { Qmp, type QmpEvent } from './qmp.ts';
import type { MachineFiles } from './record.ts';

/** Between looks at a process whose emulator does not answer; only then is there anything to poll. */
const POLL_MS = 500;

export interface MonitorOptions {
  readonly files: MachineFiles;
  readonly identity: ProcessIdentity;
  readonly consoleSize: number;
  readonly qmpTimeoutMs: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** How the process ended, when it is this daemon's own child. */
  readonly ended: Promise<string> | undefined;
  /** Writes the reason into the machine's record; called once. */
  readonly onStopped: (reason: string) => Promise<void>;
}

export class Monitor implements AsyncDisposable {
  readonly #options: MonitorOptions;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  #qmp: Qmp | undefined;
  /** The guest's own end, as QEMU's SHUTDOWN event told it. */
  readonly #shutdown = Promise.withResolvers<string>();
  readonly #draining = new KeyedLock<'console'>();

  constructor(options: MonitorOptions, qmp: Qmp | undefined, early: readonly QmpEvent[] = []) {
    this.#options = options;
    this.#qmp = qmp;
    for (const event of early) this.onEvent(event);
    this.#done = this.#watch();
  }

  /** To be called with every event of the control connection. */
  readonly onEvent = (event: QmpEvent): void => {
    if (event.name !== 'SHUTDOWN') return;
    const reason = event.data['reason'];
    this.#shutdown.resolve(shutdownReason(typeof reason === 'string' ? reason : 'for an unknown reason'));
  };

  /** Console so far; reads the ring when the machine answers, and what was saved otherwise. */
  async console(maxBytes: number, signal: AbortSignal): Promise<string> {
    return consoleText(await this.#drain(signal), maxBytes);
  }

  /** Asks the emulator to end at once. False when it could not be asked. */
  async quit(signal: AbortSignal): Promise<boolean> {
    try {
      await this.#qmp?.execute('quit', {}, signal);
      return this.#qmp !== undefined;
    } catch {
      signal.throwIfAborted();
      return false;
    }
  }

  /** Ends the watch, not the machine; the control connection stays for `quit`. */
  async endWatch(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.endWatch();
    this.#qmp?.[Symbol.dispose]();
  }

  async #watch(): Promise<void> {
    const { log, identity } = this.#options;
    try {
      const reason = await this.#reason();
      await this.#drain(this.#stop.signal).catch((error: unknown) => {
        log.debug('the end of the console is lost', { error });
      });
      await this.#options.onStopped(reason);
      // The emulator was only kept for its console: its memory goes back to the node.
      if (!(await this.quit(this.#stop.signal))) await signalProcess(identity, 'SIGKILL');
      this.#qmp = undefined;
    } catch (error) {
      if (!isAbortError(error) && !this.#stop.signal.aborted) log.error('watching a machine failed', { error });
    }
  }

  /** Waits for the end of the guest or of the process, whichever is first. */
  async #reason(): Promise<string> {
    const { signal } = this.#stop;
    for (;;) {
      this.#qmp ??= await this.#connect();
      if (this.#qmp) {
        const closed = this.#qmp.closed.then(() => undefined);
        const reason = await abortable(Promise.race([this.#shutdown.promise, closed]), signal);
        if (reason !== undefined) return reason;
        this.#qmp = undefined;
      }
      if (!(await isAlive(this.#options.identity))) {
        const how = await this.#options.ended;
        return `the emulator ended${how === undefined ? '' : `: ${how}`}`;
      }
      await this.#options.clock.sleep(POLL_MS, signal);
    }
  }

  async #connect(): Promise<Qmp | undefined> {
    const { files, qmpTimeoutMs, log } = this.#options;
    const { signal } = this.#stop;
    let qmp: Qmp | undefined;
    try {
      qmp = await Qmp.connect(files.qmp, { timeoutMs: qmpTimeoutMs, onEvent: this.onEvent, signal });
      // The guest may have ended while nobody listened: then there is no event any more, only the state.
      const status = await qmp.execute('query-status', {}, signal);
      const state = typeof status === 'object' && status !== null && 'status' in status ? String(status.status) : '';
      if (ENDED_STATES.has(state)) this.#shutdown.resolve(shutdownReason(state));
      return qmp;
    } catch (error) {
      qmp?.[Symbol.dispose]();
      signal.throwIfAborted();
      log.debug('the emulator does not answer', { error });
      return undefined;
    }
  }

  async #drain(signal: AbortSignal): Promise<Buffer> {
    const { files, consoleSize, log } = this.#options;
    // Reading empties the ring, so two readers at once would each keep a half.
    using _ = await this.#draining.acquire('console', signal);
    if (this.#qmp) {
      try {
        return await drainConsole(files.console, this.#qmp, consoleSize, signal);
      } catch (error) {
        signal.throwIfAborted();
        log.debug('the console cannot be read', { error });
      }
    }
    return await savedConsole(files.console);
  }
}

const ENDED_STATES: ReadonlySet<string> = new Set(['shutdown', 'guest-panicked', 'internal-error', 'io-error']);

const REASONS: Readonly<Record<string, string>> = {
  'guest-shutdown': 'the guest powered off',
  'guest-reset': 'the guest rebooted or its kernel panicked',
  'guest-panic': 'the guest kernel panicked',
  'guest-panicked': 'the guest kernel panicked',
  'internal-error': 'the emulator stopped on an internal error',
  'io-error': 'the emulator stopped on a disk error',
  shutdown: 'the guest ended while the daemon was away',
  'host-qmp-quit': 'ended by its control socket',
  'host-signal': 'ended by a signal from the host',
};

function shutdownReason(reason: string): string {
  return REASONS[reason] ?? `the machine stopped: ${reason}`;
}
