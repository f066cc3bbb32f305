/**
 * Keeps a process small and even while bytes stream through it. Every piece that passes leaves several buffers of its
 * size behind; they are garbage at once, but V8 sees only their small heads. It would let some 64 MiB of them pile up and
 * then collect the whole heap, which stops everything for tens of milliseconds; a minor collection now and then costs
 * well under one.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

type Collect = (options: { readonly type: 'minor' | 'major' }) => void;

let collect: Collect | undefined;

/** A function to be told of every byte of payload that passes; it collects after every `everyBytes` of them. */
export function passingBytes(everyBytes: number): (bytes: number) => void {
  let passed = 0;
  return (bytes) => {
    passed += bytes;
    if (passed < everyBytes) return;
    passed = 0;
    collectGarbage('minor');
  };
}

/** Collects now: what was made lately (minor), or everything (major). */
export function collectGarbage(type: 'minor' | 'major'): void {
  collect ??= exposeCollector();
  collect({ type });
}

function exposeCollector(): Collect {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as Collect;
}
