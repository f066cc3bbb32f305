/** The provider's verdict: made once for many callers, seldom, and never in their way. */
import { expect, test } from 'vitest';
import type { Check } from '../../src/cloud/contract.ts';
import { ProviderHealth } from '../../src/cloud/health.ts';

const signal = AbortSignal.timeout(20_000);

test('the first verdict is waited for, later ones come when they come', async () => {
  let now = 0;
  let checks: readonly Check[] = [{ name: 'kvm', ok: true, detail: '' }];
  const answers: PromiseWithResolvers<void>[] = [];
  const provider = {
    doctor: async () => {
      const turn = Promise.withResolvers<void>();
      answers.push(turn);
      await turn.promise;
      return checks;
    },
  };
  const clock = { now: () => now, sleep: async () => undefined };
  const health = new ProviderHealth({ provider, everyMs: 1000, clock });
  const first = [health.problem(signal), health.problem(signal)];
  expect(answers.length).toBe(1);
  answers[0]?.resolve();
  expect(await Promise.all(first)).toEqual(['', '']);
  now = 999;
  expect(await health.problem(signal)).toBe('');
  expect(answers.length).toBe(1);
  now = 1000;
  checks = [
    { name: 'qemu', ok: false, detail: 'not found', fix: 'install it' },
    { name: 'machine 7', ok: false, detail: 'its directory is broken', blocks: false },
  ];
  expect(await health.problem(signal)).toBe('');
  expect(answers.length).toBe(2);
  answers[1]?.resolve();
  await health[Symbol.asyncDispose]();
  expect(await health.problem(signal)).toBe('qemu: not found (install it)');
});

test('a doctor that fails is a verdict, too', async () => {
  const provider = { doctor: () => Promise.reject(new Error('no credentials')) };
  await using health = new ProviderHealth({
    provider,
    everyMs: 1000,
    clock: { now: () => 0, sleep: async () => undefined },
  });
  expect(await health.problem(signal)).toBe('no credentials');
});
