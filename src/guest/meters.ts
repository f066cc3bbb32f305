/** Figures of what guests say and nobody believes: a dialer that counts what it, and the channels it makes, refuse. */
import { InfraletError } from '../base/errors.ts';
import type { Meters } from '../telemetry/meters.ts';
import type { AgentChannel, ChannelDialer } from './channel.ts';

/** What is wrong with a message, by the code with which the channel refuses it. */
const REFUSALS: Readonly<Record<string, string>> = { DATA_LOSS: 'malformed', RESOURCE_EXHAUSTED: 'too-large' };

export function measuredDialer(meters: Meters, dialer: ChannelDialer): ChannelDialer {
  const refused = meters.counter(
    'infralet_guest_refusals_total',
    'Refused of guests: peer (wrong key, certificate or token), and messages that are malformed or too large.',
    ['what'],
  );
  const count = (error: unknown, peer: boolean): void => {
    if (!(error instanceof InfraletError)) return;
    const what = peer && error.code === 'PERMISSION_DENIED' ? 'peer' : REFUSALS[error.code];
    if (what !== undefined) refused({ what });
  };
  const dialled = async (work: Promise<AgentChannel>): Promise<AgentChannel> => {
    try {
      return counted(await work, (error) => count(error, false));
    } catch (error) {
      count(error, true);
      throw error;
    }
  };
  return {
    newToken: () => dialer.newToken(),
    userData: (token, identity) => dialer.userData(token, identity),
    enrol: async (...call) => await dialled(dialer.enrol(...call)),
    connect: async (...call) => await dialled(dialer.connect(...call)),
  };
}

/** The channel itself, but for `onError`, which is told of every call and stream that fails. */
function counted(channel: AgentChannel, onError: (error: unknown) => void): AgentChannel {
  return new Proxy(channel, {
    get: (target, key) => {
      const member: unknown = Reflect.get(target, key);
      if (typeof member !== 'function') return member;
      return (...given: readonly unknown[]): unknown => {
        const result: unknown = Reflect.apply(member, target, given);
        if (result instanceof Promise) result.catch(onError);
        return isStream(result) ? told(result, onError) : result;
      };
    },
  });
}

function isStream(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value && !('pipe' in value);
}

async function* told(stream: AsyncIterable<unknown>, onError: (error: unknown) => void): AsyncIterable<unknown> {
  try {
    yield* stream;
  } catch (error) {
    onError(error);
    throw error;
  }
}
