/** What a command writes to and listens to; tests pass their own. */
import type { Writable } from 'node:stream';

export interface Io {
  /** Results: what another program may read. */
  readonly out: Writable;
  /** Progress, hints and errors. */
  readonly err: Writable;
  /** Fires when the user ends the command. */
  readonly signal: AbortSignal;
}

export function line(stream: Writable, text = ''): void {
  stream.write(`${text}\n`);
}
