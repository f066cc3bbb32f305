import { expect, test } from 'vitest';
import { SharedWork } from '../../../src/image/shared-work.ts';

const never = new AbortController().signal;

function slowWork(): {
  readonly runs: AbortSignal[];
  readonly finish: (value: string) => void;
  readonly work: (signal: AbortSignal) => Promise<string>;
} {
  const runs: AbortSignal[] = [];
  const done = Promise.withResolvers<string>();
  return {
    runs,
    finish: done.resolve,
    work: async (signal) => {
      runs.push(signal);
      const stopped = Promise.withResolvers<never>();
      signal.addEventListener('abort', () => stopped.reject(signal.reason));
      return await Promise.race([done.promise, stopped.promise]);
    },
  };
}

test('callers of one key share one run, callers of another do not', async () => {
  const shared = new SharedWork<string>();
  const { runs, finish, work } = slowWork();
  const joined = [shared.join('a', work, never), shared.join('a', work, never), shared.join('b', work, never)];
  expect(runs).toHaveLength(2);
  finish('done');
  expect(await Promise.all(joined)).toStrictEqual(['done', 'done', 'done']);
  expect(await shared.join('a', () => Promise.resolve('anew'), never)).toBe('anew');
});

test('a caller that leaves takes nothing from the others; the last one stops the run', async () => {
  const shared = new SharedWork<string>();
  const { runs, work } = slowWork();
  const [first, second] = [new AbortController(), new AbortController()];
  const one = shared.join('a', work, first.signal);
  const two = shared.join('a', work, second.signal);
  first.abort(new Error('first left'));
  await expect(one).rejects.toThrow('first left');
  expect(runs[0]?.aborted).toBe(false);
  second.abort(new Error('second left'));
  await expect(two).rejects.toThrow('second left');
  expect(runs[0]?.aborted).toBe(true);
});

test('whoever asks after a stop starts anew, while the old run still winds down', async () => {
  const shared = new SharedWork<string>();
  const old = Promise.withResolvers<string>();
  const caller = new AbortController();
  const left = shared.join('a', () => old.promise, caller.signal);
  caller.abort(new Error('left'));
  await expect(left).rejects.toThrow('left');
  const fresh = Promise.withResolvers<string>();
  const next = shared.join('a', () => fresh.promise, never);
  old.resolve('old');
  await old.promise;
  fresh.resolve('fresh');
  expect(await next).toBe('fresh');
});

test('a failure reaches all callers and is not remembered', async () => {
  const shared = new SharedWork<string>();
  const fail = (): Promise<string> => Promise.reject(new Error('broken'));
  const results = await Promise.allSettled([shared.join('a', fail, never), shared.join('a', fail, never)]);
  expect(results.map((result) => result.status)).toStrictEqual(['rejected', 'rejected']);
  expect(await shared.join('a', () => Promise.resolve('fine'), never)).toBe('fine');
});

test('stop tells the reason and waits for the work', async () => {
  const shared = new SharedWork<string>();
  const { work } = slowWork();
  const joined = shared.join('a', work, never);
  const outcome = expect(joined).rejects.toThrow('shutting down');
  await shared.stop(new Error('shutting down'));
  await outcome;
});
