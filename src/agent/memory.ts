/**
 * Keeps the agent small while bytes stream through it. Each 64 KiB that pass leave several buffers of that size behind;
 * they are garbage at once, but V8 sees only their small heads and collects after some 64 MiB of them. A minor
 * collection every MiB costs well under a millisecond and keeps them from piling up in a machine whose memory is the pod's.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const EVERY_BYTES = 1024 * 1024;

type Collect = (options: { readonly type: 'minor' | 'major' }) => void;

let collect: Collect | undefined;
let passed = 0;

/** To be told of every byte of payload that passes. */
export function notePassed(bytes: number): void {
  passed += bytes;
  if (passed < EVERY_BYTES) return;
  passed = 0;
  collect ??= exposeCollector();
  collect({ type: 'minor' });
}

function exposeCollector(): Collect {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as Collect;
}
