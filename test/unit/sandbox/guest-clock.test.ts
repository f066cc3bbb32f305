/** The first words to a machine set its clock, whatever the way there and the work on them cost. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Clock } from '../../../src/base/time.ts';
import type { AgentChannel, FirstWords } from '../../../src/guest/channel.ts';
import { GuestClock } from '../../../src/sandbox/guest-clock.ts';

const options = { signal: AbortSignal.timeout(60_000), timeoutMs: 60_000 };

interface Way {
  /** Of each message in turn, or of all. */
  readonly there: number | readonly number[];
  readonly back: number;
  readonly handled: number;
  readonly said?: number;
  /** The last of so many is looked at. */
  readonly machines?: number;
}

const facts = { agentVersion: '1', kernel: '', bootId: '' };

/** A machine whose messages take `there` and `back`, that is at work for `handled`, and says that it was for `said`. */
async function meet({ there, back, handled, said = handled, machines = 1 }: Way) {
  let now = 1_800_000_000_000;
  let ahead = Number.NaN;
  const words: FirstWords[] = [];
  const clock = { now: () => now } as Clock;
  const channel: Pick<AgentChannel, 'configure'> = {
    configure: async (each) => {
      words.push(each);
      now += typeof there === 'number' ? there : (there[words.length - 1] ?? 10);
      ahead = each.clockMs - now;
      now += handled;
      const clockMs = now + ahead;
      now += back;
      return { sandboxId: 'a1', clockMs, handledMs: said, uptimeMs: 5, phases: {}, imageDigest: 'x', ...facts };
    },
  };
  const settings = { entropy: new Uint8Array(64).fill(1), hostname: 'node' };
  const guestClock = new GuestClock(clock);
  for (let met = 1; met < machines; met += 1) await guestClock.configure(channel as AgentChannel, settings, options);
  words.length = 0;
  const answer = await guestClock.configure(channel as AgentChannel, settings, options);
  return { ahead, words, answer };
}

test('the clock is right within 50 ms or half of the way, however long the machine was at it', async () => {
  const ms = fc.nat(2000);
  await fc.assert(
    fc.asyncProperty(ms, ms, ms, async (there, back, handled) => {
      const { ahead, answer, words } = await meet({ there, back, handled });
      expect(Math.abs(ahead)).toBeLessThanOrEqual(Math.max(50, (there + back) / 2));
      expect(answer.sandboxId).toBe('a1');
      expect(words.length).toBeLessThanOrEqual(3);
    }),
  );
});

test('work that takes long is no reason to set the clock again', async () => {
  const { words, ahead } = await meet({ there: 10, back: 10, handled: 3000 });
  expect(words).toHaveLength(1);
  expect(ahead).toBe(-10);
});

test('a first call that was late is made up for; randomness is given once', async () => {
  const { words, ahead } = await meet({ there: [400], back: 20, handled: 0 });
  expect(words.map(({ entropy }) => entropy.length)).toEqual([64, 0, 0]);
  expect(Math.abs(ahead)).toBeLessThanOrEqual(50);
});

test('a way that is usual is known with the second machine', async () => {
  const way = { there: 60, back: 20, handled: 100 };
  expect((await meet(way)).words.length).toBeGreaterThan(1);
  const { words, ahead } = await meet({ ...way, machines: 2 });
  expect(words).toHaveLength(1);
  expect(ahead).toBe(-20);
});

test.each([-1e9, 1e9])('a machine that says it was at it for %d ms gets no more than three tries', async (said) => {
  const { words } = await meet({ there: 10, back: 10, handled: 10, said });
  expect(words.length).toBeLessThanOrEqual(3);
  expect(words.every(({ clockMs }) => Number.isFinite(clockMs))).toBe(true);
});
