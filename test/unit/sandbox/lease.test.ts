/** The daemon's side of leases: a session renews its machine's, and one renewal that fails is no reason to end. */
import { expect, test } from 'vitest';
import { newSandboxId } from '../../../src/base/ids.ts';
import type { AgentChannel } from '../../../src/guest/channel.ts';
import { Sessions } from '../../../src/sandbox/session.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { VirtualClock } from '../../support/cloud/virtual-clock.ts';
import { FakeGuests } from '../../support/fake-guest.ts';

const LEASE = 900_000;

test('a machine hears of its node five times in its lease, and no more once the session has ended', async () => {
  const clock = new VirtualClock();
  const renewed: number[] = [];
  const channel: AgentChannel = Object.assign(await new FakeGuests().enrol(undefined, { sandboxId: 's' }), {
    async *watch(heartbeatMs: number, signal: AbortSignal) {
      for (;;) {
        await clock.sleep(heartbeatMs, signal);
        yield { kind: 'heartbeat' as const };
      }
    },
    renewLease: async (durationMs: number) => {
      expect(durationMs).toBe(LEASE);
      renewed.push(clock.now());
      if (renewed.length === 2) throw new Error('the line was bad');
    },
  });
  let ended = '';
  const sessions = new Sessions({
    hooks: { onEvent: () => undefined, onImageConnection: () => undefined, onEnd: (_id, reason) => (ended = reason) },
    clock,
    log: nullLogger,
    heartbeatMs: 5000,
    sampling: { everyMs: 10_000, layerMs: 60_000 },
    leaseMs: LEASE,
    waitMs: 1000,
  });
  const id = newSandboxId();
  const signal = AbortSignal.timeout(20_000);
  const begun = clock.now();
  await clock.run(sessions.start(id, channel));
  await clock.run(clock.sleep(LEASE, signal));
  expect(ended).toBe('');
  expect(renewed.length).toBeGreaterThanOrEqual(5);
  expect(renewed.slice(0, 3).map((at) => at - begun)).toEqual([0, LEASE / 5, (2 * LEASE) / 5]);
  await clock.run(sessions.end(id, 'enough'));
  const count = renewed.length;
  await clock.run(clock.sleep(LEASE, signal));
  expect(renewed).toHaveLength(count);
});

test('a request waits for the channel that is being made, but not for ever', async () => {
  const clock = new VirtualClock();
  await using sessions = new Sessions({
    hooks: { onEvent: () => undefined, onImageConnection: () => undefined, onEnd: () => undefined },
    clock,
    log: nullLogger,
    heartbeatMs: 5000,
    sampling: { everyMs: 10_000, layerMs: 60_000 },
    leaseMs: 0,
    waitMs: 1000,
  });
  const signal = AbortSignal.timeout(20_000);
  const id = newSandboxId();
  await expect(clock.run(sessions.opened(id, signal))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await expect(sessions.opened(id, AbortSignal.abort(new Error('the caller went')))).rejects.toThrow('the caller went');
  const channel = await new FakeGuests().enrol(undefined, { sandboxId: 's' });
  const waiting = [sessions.opened(id, signal), sessions.opened(id, signal)];
  await sessions.start(id, channel);
  expect(await Promise.all(waiting)).toEqual([channel, channel]);
});
