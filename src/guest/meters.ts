/** Figures of what guests say and nobody believes: a dialer that counts what it, and the channels it makes, refuse. */
import { InfraletError } from '../base/errors.ts';
import type { Meters } from '../telemetry/meters.ts';
import type { AgentChannel, ChannelDialer } from './channel.ts';
import { observed } from './observed.ts';

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
      return observed(await work, (error) => count(error, false));
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
