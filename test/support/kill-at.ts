/**
 * Loaded into a daemon before its own code (`--import`): kills the process, with the one signal that nothing can be done
 * about, where its journal notes a step. Which one is in the file that KILL_AT names; it is looked at with every note, so
 * that a test can say so to a daemon that runs.
 */
import { readFileSync } from 'node:fs';
import { StatementSync } from 'node:sqlite';
import type { StepOutcome } from '../../src/state/journal.ts';

/** `intent` is on disk and nothing done yet; or all is done, and `done` is not on disk yet. */
export interface Moment {
  readonly step: string;
  readonly outcome: Extract<StepOutcome, 'intent' | 'done'>;
}

const file = process.env['KILL_AT'];
const write: unknown = Reflect.get(StatementSync.prototype, 'run');

if (file !== undefined && typeof write === 'function') {
  const striking = new Proxy(write, {
    apply: (run, statement, args: readonly unknown[]) => {
      const moment = wanted(file);
      const struck = moment !== undefined && args.includes(moment.step) && args.includes(moment.outcome);
      if (struck && moment.outcome === 'done') process.kill(process.pid, 'SIGKILL');
      const result: unknown = Reflect.apply(run, statement, args);
      if (struck) process.kill(process.pid, 'SIGKILL');
      return result;
    },
  });
  Object.defineProperty(StatementSync.prototype, 'run', { value: striking });
}

function wanted(path: string): Moment | undefined {
  const text = readFileSync(path, 'utf8');
  return text === '' ? undefined : (JSON.parse(text) as Moment);
}
