import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Lease } from '../../../src/agent/lease.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

test('a lease ends once, when its time is over and not before', () => {
  const ended = vi.fn();
  const lease = new Lease(ended);
  lease.renew(1000);
  vi.advanceTimersByTime(999);
  expect(ended).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1);
  expect(ended).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(10_000);
  expect(ended).toHaveBeenCalledTimes(1);
});

test('every renewal counts from its own time, a shorter one too; 0 takes the end away', () => {
  const ended = vi.fn();
  const lease = new Lease(ended);
  lease.renew(1000);
  vi.advanceTimersByTime(900);
  lease.renew(1000);
  vi.advanceTimersByTime(900);
  lease.renew(50);
  lease.renew(0);
  vi.advanceTimersByTime(10 ** 9);
  expect(ended).not.toHaveBeenCalled();
});

test('a lease of months is longer than any timer and ends all the same', () => {
  const ended = vi.fn();
  const lease = new Lease(ended);
  const months = 2 ** 31 + 5_000;
  lease.renew(months);
  vi.advanceTimersByTime(months - 1);
  expect(ended).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1);
  expect(ended).toHaveBeenCalledTimes(1);
});
