/**
 * User data from the metadata service of a cloud: EC2's (version 2 only: every request under a token) or Compute Engine's.
 * Which one it is shows in how the service answers. The machine's network may still be coming up, so everything is tried
 * again until the time is up; what the service says for certain (there is no user data) is tried again as well, since a
 * service that has just started says so, too.
 */
import { type IncomingMessage, request } from 'node:http';
import { backoffMs } from '../base/backoff.ts';
import { errorMessage, InfraletError } from '../base/errors.ts';
import { systemClock } from '../base/time.ts';
import type { UserData } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { LIMITS } from './options.ts';
import { parseUserData } from './user-data.ts';

/** The item of an instance's metadata that providers/gcp writes. */
const GCE_KEY = 'infralet-user-data';
const GCE_HEADER = 'metadata-flavor';
/** The token serves three requests. */
const TOKEN_SECONDS = '60';

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
}

/** @param base where the service is, "http://169.254.169.254" on both clouds. */
export async function metadataUserData(options: {
  readonly base: string;
  readonly timeoutMs: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
}): Promise<UserData> {
  const { base, timeoutMs, log } = options;
  const deadline = performance.now() + timeoutMs;
  let last = '';
  for (let attempt = 1; ; attempt += 1) {
    try {
      const found = (await fromEc2(base, options.signal)) ?? (await fromGce(base, options.signal));
      if (found) return parseUserData(found.text, found.instanceId);
      throw new InfraletError('NOT_FOUND', 'the metadata service is of no cloud that is known here');
    } catch (error) {
      options.signal.throwIfAborted();
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
    const pause = backoffMs(
      { initialMs: LIMITS.metadataPauseMs, maxMs: LIMITS.metadataPauseMaxMs, factor: 2, jitter: 0.2 },
      attempt,
    );
    await systemClock.sleep(pause, options.signal);
  }
}

interface Found {
  readonly text: string;
  readonly instanceId: string;
}

async function fromEc2(base: string, signal: AbortSignal): Promise<Found | undefined> {
  const session = await ask(`${base}/latest/api/token`, signal, 'PUT', {
    'x-aws-ec2-metadata-token-ttl-seconds': TOKEN_SECONDS,
  });
  // Compute Engine does not know the path, or wants its header first.
  if (session.status !== 200 || GCE_HEADER in session.headers) return undefined;
  const headers = { 'x-aws-ec2-metadata-token': session.text };
  const instanceId = await need(`${base}/latest/meta-data/instance-id`, signal, headers);
  return { text: await need(`${base}/latest/user-data`, signal, headers), instanceId };
}

/** The machine's id is zone and name, as the provider has it. */
async function fromGce(base: string, signal: AbortSignal): Promise<Found | undefined> {
  const headers = { [GCE_HEADER]: 'Google' };
  const root = `${base}/computeMetadata/v1/instance`;
  const name = await ask(`${root}/name`, signal, 'GET', headers);
  if (name.status !== 200 || name.headers[GCE_HEADER] !== 'Google') return undefined;
  const zone = (await need(`${root}/zone`, signal, headers)).replace(/^.*\//, '');
  const text = await need(`${root}/attributes/${GCE_KEY}`, signal, headers);
  return { text, instanceId: `${zone}/${name.text}` };
}

async function need(url: string, signal: AbortSignal, headers: Readonly<Record<string, string>>): Promise<string> {
  const { status, text } = await ask(url, signal, 'GET', headers);
  if (status !== 200) throw new InfraletError('UNAVAILABLE', `${url}: status ${status}`);
  return text;
}

/** One bounded request; never through a proxy, never redirected. */
async function ask(
  url: string,
  signal: AbortSignal,
  method: 'GET' | 'PUT',
  headers: Readonly<Record<string, string>>,
): Promise<Answer> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(LIMITS.metadataRequestMs)]);
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const call = request(url, { method, headers, agent: false, signal: limited }, (response) => {
    const chunks: Buffer[] = [];
    let length = 0;
    response.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > LIMITS.userData) response.destroy(new Error('the answer is too long'));
      else chunks.push(chunk);
    });
    response.on('error', reject);
    response.on('end', () => {
      const text = Buffer.concat(chunks).toString('utf8');
      resolve({ status: response.statusCode ?? 0, headers: response.headers, text });
    });
  });
  call.on('error', reject);
  call.end();
  try {
    return await promise;
  } catch (error) {
    throw new InfraletError('UNAVAILABLE', `${url}: ${errorMessage(error)}`, { cause: error });
  }
}
