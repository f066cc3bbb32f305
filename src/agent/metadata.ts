/**
 * The metadata service of a cloud: EC2's (version 2 only: every request under a token) or Compute Engine's. Which one it is
 * shows in how it answers.
 */
import { type IncomingMessage, request } from 'node:http';
import { errorMessage, InfraletError } from '../base/errors.ts';
import { LIMITS } from './options.ts';

const GCE_HEADER = 'metadata-flavor';
/** The longest that EC2 gives; a token that is refused is replaced. */
const TOKEN_SECONDS = '21600';

type Headers = Readonly<Record<string, string>>;

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
}

export interface Metadata {
  readonly kind: 'ec2' | 'gce';
  /**
   * The value at a path below `latest` (EC2: "meta-data/instance-id") or `computeMetadata/v1/instance` (Compute Engine:
   * "name"); undefined when the service knows none. Throws UNAVAILABLE when it does not answer within `timeoutMs`
   * (default: LIMITS.metadataRequestMs).
   */
  get(path: string, signal: AbortSignal, timeoutMs?: number): Promise<string | undefined>;
}

/** @param base where the service is, "http://169.254.169.254" on both clouds. */
export async function openMetadata(base: string, signal: AbortSignal): Promise<Metadata> {
  const token = await ec2Token(base, signal);
  if (token !== undefined) return ec2(base, token);
  const url = `${base}/computeMetadata/v1/instance`;
  const headers = { [GCE_HEADER]: 'Google' };
  const probe = await ask(`${url}/name`, signal, 'GET', headers);
  if (probe.status !== 200 || probe.headers[GCE_HEADER] !== 'Google') {
    throw new InfraletError('UNAVAILABLE', `${base} is the metadata service of no cloud that is known here`);
  }
  return {
    kind: 'gce',
    get: async (path, until, timeoutMs) =>
      value(`${url}/${path}`, await ask(`${url}/${path}`, until, 'GET', headers, timeoutMs)),
  };
}

function ec2(base: string, first: string): Metadata {
  let token = first;
  return {
    kind: 'ec2',
    get: async (path, signal, timeoutMs) => {
      const url = `${base}/latest/${path}`;
      const read = async (): Promise<Answer> =>
        await ask(url, signal, 'GET', { 'x-aws-ec2-metadata-token': token }, timeoutMs);
      const answer = await read();
      if (answer.status !== 401) return value(url, answer);
      token = (await ec2Token(base, signal)) ?? '';
      return value(url, await read());
    },
  };
}

/** Undefined when this is not EC2: Compute Engine does not know the path, or wants its header first. */
async function ec2Token(base: string, signal: AbortSignal): Promise<string | undefined> {
  const { status, headers, text } = await ask(`${base}/latest/api/token`, signal, 'PUT', {
    'x-aws-ec2-metadata-token-ttl-seconds': TOKEN_SECONDS,
  });
  return status === 200 && !(GCE_HEADER in headers) ? text : undefined;
}

function value(url: string, { status, text }: Answer): string | undefined {
  if (status === 404) return undefined;
  if (status !== 200) throw new InfraletError('UNAVAILABLE', `${url}: status ${status}`);
  return text;
}

/** One bounded request; never through a proxy, never redirected. */
async function ask(
  url: string,
  signal: AbortSignal,
  method: 'GET' | 'PUT',
  headers: Headers,
  timeoutMs: number = LIMITS.metadataRequestMs,
): Promise<Answer> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
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
