/**
 * User data on a cloud. The machine's network may still be coming up, so everything is tried again until the time is up; a
 * service that says there is no user data is asked again as well, since one that has just started says so, too.
 */
import { backoffMs } from '../base/backoff.ts';
import { errorMessage, InfraletError } from '../base/errors.ts';
import { systemClock } from '../base/time.ts';
import type { UserData } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { openMetadata } from './metadata.ts';
import { LIMITS } from './options.ts';
import { parseUserData } from './user-data.ts';

/** The item of an instance's metadata that providers/gcp writes. */
const GCE_KEY = 'infralet-user-data';

/** @param base where the metadata service is. */
export async function cloudUserData(options: {
  readonly base: string;
  readonly timeoutMs: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
}): Promise<UserData> {
  const { base, timeoutMs, log, signal } = options;
  const deadline = performance.now() + timeoutMs;
  const policy = { initialMs: LIMITS.metadataPauseMs, maxMs: LIMITS.metadataPauseMaxMs, factor: 2, jitter: 0.2 };
  let last = '';
  for (let attempt = 1; ; attempt += 1) {
    try {
      const { text, instanceId } = await find(base, signal);
      return parseUserData(text, instanceId);
    } catch (error) {
      signal.throwIfAborted();
      // User data that is there and wrong does not get better.
      if (error instanceof InfraletError && error.code === 'INVALID_ARGUMENT') throw error;
      const reason = errorMessage(error);
      if (reason !== last) log.info('no user data yet', { reason });
      last = reason;
    }
    if (performance.now() >= deadline) {
      throw new InfraletError('FAILED_PRECONDITION', `no user data from ${base} in ${timeoutMs} ms: ${last}`, {
        hint: 'the machine must be started with the user data of ChannelDialer.userData',
      });
    }
    await systemClock.sleep(backoffMs(policy, attempt), signal);
  }
}

async function find(
  base: string,
  signal: AbortSignal,
): Promise<{ readonly text: string; readonly instanceId: string }> {
  const metadata = await openMetadata(base, signal);
  const need = async (path: string): Promise<string> => {
    const value = await metadata.get(path, signal);
    if (value === undefined) throw new InfraletError('NOT_FOUND', `the metadata service has no ${path}`);
    return value;
  };
  if (metadata.kind === 'ec2') {
    return { instanceId: await need('meta-data/instance-id'), text: await need('user-data') };
  }
  // The machine's id is zone and name, as the provider has it.
  const zone = (await need('zone')).replace(/^.*\//, '');
  return { instanceId: `${zone}/${await need('name')}`, text: await need(`attributes/${GCE_KEY}`) };
}
