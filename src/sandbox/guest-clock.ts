/** The first words to machines, and the time of day in them, set over a channel that takes its own time. */
import type { Clock } from '../base/time.ts';
import type { AgentChannel, CallOptions, FirstAnswer, FirstWords } from '../guest/channel.ts';

/** A clock that may be off by more is set again. Milliseconds. */
const TOLERANCE_MS = 50;
/** On a busy host a message may be late once; the answer shows it. */
const TRIES = 3;
/** No machine's answer says more than this about the next machine's way. */
const MAX_WAY_MS = 100;

export class GuestClock {
  readonly #clock: Clock;
  /** What the first message to the machine before and its answer were on their way: an emulated one reads slowly at first. */
  #usualWayMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Sets clock, randomness, host name and the pod where it is known; corrects what the way there has cost the clock. */
  async configure(
    channel: AgentChannel,
    settings: Omit<FirstWords, 'clockMs'>,
    options: CallOptions,
  ): Promise<FirstAnswer> {
    const say = async (words: Omit<FirstWords, 'clockMs'>, early: number) => {
      const asked = this.#clock.now();
      const answer = await channel.configure({ clockMs: asked + early, ...words }, options);
      return { answer, ...offset(answer, asked, this.#clock.now()) };
    };
    let early = this.#usualWayMs / 2;
    const first = await say(settings, early);
    this.#usualWayMs = Math.min(first.wayMs, MAX_WAY_MS);
    let { aheadMs, wayMs } = first;
    for (let tries = 1; tries < TRIES && Math.abs(aheadMs) + wayMs / 2 > TOLERANCE_MS; tries += 1) {
      early -= aheadMs;
      ({ aheadMs, wayMs } = await say({ entropy: new Uint8Array(0), hostname: settings.hostname }, early));
    }
    return first.answer;
  }
}

/**
 * Milliseconds by which the guest was ahead when it answered, give or take half of what the message was on its way: the time
 * that the guest says it was at work is not part of that, but never more than has passed.
 */
function offset(
  { clockMs, handledMs }: FirstAnswer,
  asked: number,
  now: number,
): { readonly aheadMs: number; readonly wayMs: number } {
  const took = now - asked;
  const wayMs = took - Math.max(0, Math.min(took, handledMs));
  return { aheadMs: clockMs - (now - wayMs / 2), wayMs };
}
