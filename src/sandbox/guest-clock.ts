/** The time of day in a machine, set over a channel that takes its own time. */
import type { Clock } from '../base/time.ts';
import type { StatusResponse__Output } from '../gen/infralet/agent/v1/StatusResponse.ts';
import type { AgentChannel, CallOptions } from '../guest/channel.ts';

/** A clock that is off by less is left alone: it is as exact as the look at it. Milliseconds. */
const TOLERANCE_MS = 25;
/** On a busy host a message may be late once; the look afterwards shows it. */
const TRIES = 3;

export interface ClockLook {
  readonly status: StatusResponse__Output;
  /** Milliseconds by which the guest is ahead, give or take half of `tookMs`. */
  readonly aheadMs: number;
  readonly tookMs: number;
}

/** Sets clock, randomness and host name; looks at the result, and corrects what the way there has cost. */
export async function configureGuest(
  channel: AgentChannel,
  settings: { readonly entropy: Uint8Array; readonly hostname: string },
  clock: Clock,
  options: CallOptions,
): Promise<StatusResponse__Output> {
  let early = 0;
  await channel.configure({ clockMs: clock.now(), ...settings }, options);
  for (let tries = 1; ; tries += 1) {
    const { status, aheadMs, tookMs } = await lookAtClock(channel, clock, options);
    if (Math.abs(aheadMs) <= TOLERANCE_MS + tookMs / 2 || tries === TRIES) return status;
    early -= aheadMs;
    const again = { clockMs: clock.now() + early, entropy: new Uint8Array(0), hostname: settings.hostname };
    await channel.configure(again, options);
  }
}

export async function lookAtClock(channel: AgentChannel, clock: Clock, options: CallOptions): Promise<ClockLook> {
  const before = clock.now();
  const status = await channel.status(options);
  const tookMs = clock.now() - before;
  return { status, tookMs, aheadMs: Number(BigInt(status.clockNanos) / 1_000_000n) - (before + tookMs / 2) };
}
