/** What only a guest does that breaks the rules: told apart from failures that any machine has. */
import { InfraletError } from '../base/errors.ts';
import type { ChannelDialer } from './channel.ts';
import { observed } from './observed.ts';

export interface GuestLimits {
  /** Messages that a machine may send of its own accord, per second in the long run; large ones count for several. */
  readonly messages: number;
  /** The same at once. */
  readonly burst: number;
  /** Bytes of the largest answer but for the output of an exec. */
  readonly maxAnswer: number;
}

/** Bytes that count for one message. */
const MESSAGE_BYTES = 4096;

export function misconduct(code: 'DATA_LOSS' | 'RESOURCE_EXHAUSTED', message: string): InfraletError {
  return new InfraletError(code, message, {
    context: { misconduct: true },
    hint: 'the machine does not run the agent that it was given, or somebody has broken out into it: replace the pod',
  });
}

export function isMisconduct(error: unknown): error is InfraletError {
  return error instanceof InfraletError && error.context['misconduct'] === true;
}

/** What a machine's containerd calls one of its things; it is kept in the journal. */
export function guestId(text: string): string {
  if (/^[\w.-]{1,128}$/.test(text)) return text;
  throw misconduct('DATA_LOSS', `the agent gave an id that is none: ${JSON.stringify(text.slice(0, 40))}`);
}

/** A dialer whose channels tell of their guests' misconduct, whichever call it came to light in. */
export function judgedDialer(
  dialer: ChannelDialer,
  onMisconduct: (sandboxId: string, error: InfraletError) => void,
): ChannelDialer {
  const judge =
    (sandboxId: string) =>
    (error: unknown): void => {
      if (isMisconduct(error)) onMisconduct(sandboxId, error);
    };
  const judged: Pick<ChannelDialer, 'enrol' | 'connect'> = {
    enrol: async (address, identity, token, options) =>
      observed(await dialer.enrol(address, identity, token, options), judge(identity.sandboxId)),
    connect: async (address, identity, options) =>
      observed(await dialer.connect(address, identity, options), judge(identity.sandboxId)),
  };
  return {
    newToken: () => dialer.newToken(),
    userData: (token, identity) => dialer.userData(token, identity),
    ...judged,
  };
}

/** How much a machine may say unasked: a bucket that fills again as real time passes. */
export class Allowance {
  readonly #limits: Pick<GuestLimits, 'messages' | 'burst'>;
  #left: number;
  #at = performance.now();

  constructor(limits: Pick<GuestLimits, 'messages' | 'burst'>) {
    this.#limits = limits;
    this.#left = limits.burst;
  }

  /** Throws when it is more than allowed. @param bytes of the message, or of what it costs to look at it. */
  spend(what: string, bytes = 0): void {
    const now = performance.now();
    const { messages, burst } = this.#limits;
    this.#left = Math.min(burst, this.#left + ((now - this.#at) / 1000) * messages) - 1 - bytes / MESSAGE_BYTES;
    this.#at = now;
    if (this.#left >= 0) return;
    throw misconduct(
      'RESOURCE_EXHAUSTED',
      `the machine floods its node with ${what}: more than ${messages} a second after ${burst} at once`,
    );
  }
}
