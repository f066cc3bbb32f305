/** What a bench prints: aligned tables for people, one JSON file for comparisons, and where it was measured. */
import { writeFile } from 'node:fs/promises';
import { availableParallelism, loadavg, totalmem } from 'node:os';
import { inspect } from 'node:util';
import { formatTable } from '../../src/cli/format.ts';

export function say(text = ''): void {
  process.stdout.write(`${text}\n`);
}

export function table(header: readonly string[], rows: readonly (readonly string[])[]): void {
  say(formatTable(header, rows));
  say();
}

/** Milliseconds with three significant digits or so. */
export function ms(value: number): string {
  if (!Number.isFinite(value)) return '-';
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0);
}

export function mebibytes(bytes: number | undefined): string {
  return bytes === undefined || !Number.isFinite(bytes) ? '-' : (bytes / 2 ** 20).toFixed(1);
}

export interface Environment {
  readonly date: string;
  readonly cores: number;
  readonly memoryBytes: number;
  /** Load average of the last minute, when the run began and when it ended. */
  readonly load: { readonly before: number; readonly after: number };
}

/** Called at the beginning; the function it returns is called at the end. */
export function environment(): () => Environment {
  const [before = 0] = loadavg();
  return () => ({
    date: new Date().toISOString(),
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    load: { before, after: loadavg()[0] ?? 0 },
  });
}

/** `bench` names the program; what else it measured is its own. */
export interface Report {
  readonly bench: string;
  readonly environment: Environment;
  readonly [figures: string]: unknown;
}

export async function finish(report: Report, file: string | undefined): Promise<void> {
  const { cores, load, date } = report.environment;
  say(`${date}, ${cores} cores, load average ${load.before.toFixed(2)} before, ${load.after.toFixed(2)} after`);
  if (file === undefined) return;
  await writeFile(file, `${JSON.stringify(report, undefined, 2)}\n`);
  say(`written: ${file}`);
}

/**
 * Runs a bench program; an error, and one that came up while it was being cleared away after, go to standard error. The
 * first Ctrl-C fires the signal, for the program to stop between two calls and to clear away; the next one ends it.
 */
export async function runBench(main: (interrupted: AbortSignal) => Promise<void>): Promise<void> {
  const interrupt = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => {
      say('stopping after the present call; once more to stop at once and leave its machines to you');
      interrupt.abort(new Error(`stopped by ${name}`));
    });
  }
  try {
    await main(interrupt.signal);
  } catch (error) {
    process.exitCode = 1;
    for (let each: unknown = error; each !== undefined; ) {
      const both = each instanceof SuppressedError ? each : undefined;
      process.stderr.write(`✘ ${inspect(both ? both.suppressed : each)}\n`);
      each = both?.error;
    }
  }
}
