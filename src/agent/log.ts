/** The agent's log: one JSON line per event on stderr, which is the machine's console. Bounded, since guests can cause it. */
import { writeSync } from 'node:fs';
import type { Logger, LogLevel } from '../telemetry/log.ts';
import { LIMITS } from './options.ts';

type Fields = Readonly<Record<string, unknown>>;

export function createAgentLog(fields: Fields = {}, write: (line: string) => void = toStderr): Logger {
  const at =
    (level: LogLevel) =>
    (message: string, more: Fields = {}): void => {
      const time = new Date().toISOString();
      const line = JSON.stringify({ level, time, ...fields, msg: message, ...more }, (_key, value: unknown) =>
        value instanceof Error ? value.message : value,
      );
      write(line.length <= LIMITS.logLine ? line : `${line.slice(0, LIMITS.logLine)}…`);
    };
  return {
    trace() {},
    debug() {},
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (more) => createAgentLog({ ...fields, ...more }, write),
  };
}

/** Lets at most `perSecond` lines through and tells afterwards how many it swallowed. */
export class RefusalLog {
  readonly #log: Logger;
  #second = 0;
  #written = 0;
  #swallowed = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  refuse(reason: string, fields: Fields): void {
    const second = Math.floor(Date.now() / 1000);
    if (second !== this.#second) {
      if (this.#swallowed > 0) this.#log.warn('more refusals', { count: this.#swallowed });
      this.#second = second;
      this.#written = 0;
      this.#swallowed = 0;
    }
    if (this.#written < LIMITS.refusalsPerSecond) {
      this.#written += 1;
      this.#log.warn('refused', { reason, ...fields });
    } else {
      this.#swallowed += 1;
    }
  }
}

/** The console may be gone or full; the agent goes on without it. */
function toStderr(line: string): void {
  try {
    writeSync(2, `${line}\n`);
  } catch {
    // Nowhere left to tell.
  }
}
