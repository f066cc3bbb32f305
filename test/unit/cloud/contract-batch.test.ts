import { expect, test } from 'vitest';
import type { Instance, LaunchRequest } from '../../../src/cloud/contract.ts';
import { eachLaunch } from '../../../src/cloud/contract-batch.ts';

test('each launch has its own fate; what breaks the contract reaches no provider', async () => {
  const good: LaunchRequest = {
    token: 'good',
    tags: {},
    shape: { cpuMillis: 1, memoryBytes: 1, diskBytes: 1 },
    userData: 'é'.repeat(2048),
  };
  const bad = [
    { ...good, token: '' },
    { ...good, token: 'a b' },
    { ...good, token: 'x'.repeat(65) },
    { ...good, token: 'large', userData: 'é'.repeat(2049) },
  ];
  const asked: string[] = [];
  const results = await eachLaunch([...bad, { ...good, token: 'unlucky' }, good], async ({ token }) => {
    asked.push(token);
    if (token === 'unlucky') throw new Error('no room');
    return { token } as Instance;
  });
  expect(asked).toEqual(['unlucky', 'good']);
  for (const result of results.slice(0, 4))
    expect(result).toMatchObject({ ok: false, error: { code: 'INVALID_ARGUMENT' } });
  expect(results.slice(4)).toEqual([
    { token: 'unlucky', ok: false, error: new Error('no room') },
    { token: 'good', ok: true, instance: { token: 'good' } },
  ]);
});
