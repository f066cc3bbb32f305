import { constants } from 'node:os';
import { expect, test } from 'vitest';
import { podLimits } from '../../../src/agent/pod-resources.ts';
import { signalNumber } from '../../../src/container/stop.ts';
import { loadCri } from '../../../src/rpc/load.ts';

test('every signal of the enum has its number', () => {
  const { CreateContainer } = loadCri().RuntimeService.service;
  const numbers = Array.from({ length: 66 }, (_, value) => {
    const bytes = CreateContainer.requestSerialize({ config: { stopSignal: value as never } });
    const name = CreateContainer.requestDeserialize(bytes).config?.stopSignal ?? 'SIGNAL_RUNTIME_DEFAULT';
    return [name, signalNumber(name)] as const;
  });
  const of = new Map(numbers);
  expect(of.get('SIGNAL_RUNTIME_DEFAULT')).toBe(undefined);
  expect(numbers.slice(1).every(([, number]) => number !== undefined && number >= 1 && number <= 64)).toBe(true);
  expect(of.get('SIGNAL_SIGTERM')).toBe(constants.signals.SIGTERM);
  expect(of.get('SIGNAL_SIGCLD')).toBe(constants.signals.SIGCHLD);
  expect(of.get('SIGNAL_SIGUSR1')).toBe(10);
  expect(of.get('SIGNAL_SIGRTMIN')).toBe(34);
  expect(of.get('SIGNAL_SIGRTMINPLUS15')).toBe(49);
  expect(of.get('SIGNAL_SIGRTMAXMINUS14')).toBe(50);
  expect(of.get('SIGNAL_SIGRTMAX')).toBe(64);
});

test('limits of a pod as files of its cgroup', () => {
  const none = { memoryBytes: '0', cpuQuota: '0', cpuPeriod: '0', cpuShares: '0' };
  expect([...podLimits(none)]).toEqual([]);
  expect(
    Object.fromEntries(podLimits({ memoryBytes: '4096', cpuQuota: '50000', cpuPeriod: '0', cpuShares: '1024' })),
  ).toEqual({ 'memory.max': '4096', 'cpu.max': '50000 100000', 'cpu.weight': '39' });
  expect(Object.fromEntries(podLimits({ ...none, memoryBytes: '-1', cpuQuota: '-1', cpuPeriod: '20000' }))).toEqual({
    'memory.max': 'max',
    'cpu.max': 'max 20000',
  });
  expect(podLimits({ ...none, cpuShares: '2' }).get('cpu.weight')).toBe('1');
  expect(podLimits({ ...none, cpuShares: '999999' }).get('cpu.weight')).toBe('10000');
  expect(() => podLimits({ ...none, memoryBytes: '-2' })).toThrow('memory_bytes');
});
