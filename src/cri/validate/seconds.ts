/** Time-outs of requests: whole seconds as int64. */
import { range64 } from './fields.ts';

/** A year; far above any grace period, far below what timers of any layer overflow at. */
const LONGEST = 365n * 24n * 3600n;

/** Larger values mean "as long as it takes" and are cut to a year; negative ones are refused. */
export function seconds(path: string, value: string): number {
  const given = range64(path, value, 0n);
  return Number(given < LONGEST ? given : LONGEST);
}
