/** The metadata services of both clouds, as strict as they are: tokens, headers, methods, one machine per address. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export type CloudKind = 'ec2' | 'gce';

export interface MetadataMachine {
  /** EC2's instance id; for Compute Engine zone and name, "europe-west3-a/infralet-1". */
  readonly id: string;
  /** Undefined: it was started without. */
  readonly userData: string | undefined;
  /** Undefined: it is no spot machine. `notice`: its end has been announced, for that time (milliseconds since the epoch). */
  readonly spot?: { readonly notice: number | undefined } | undefined;
}

export interface MetadataService extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  /** What was asked, "PUT /latest/api/token 200", in order. */
  readonly requests: readonly string[];
}

/** @param machine who asks, by the address that asks. */
export async function startMetadataService(
  cloud: CloudKind,
  machine: (address: string) => MetadataMachine | undefined,
  host = '127.0.0.1',
): Promise<MetadataService> {
  const tokens = new Set<string>();
  const requests: string[] = [];
  const answer = cloud === 'ec2' ? ec2(tokens) : gce;
  const server = createServer((request, response) => {
    const who = (request.socket.remoteAddress ?? '').replace(/^::ffff:/, '');
    const found = machine(who);
    if (found) answer(found, request, response, () => machine(who));
    else response.writeHead(404).end();
    // One that is held open is told of when it is answered.
    if (!response.writableEnded) return;
    requests.push(`${request.method ?? ''} ${request.url ?? ''} ${response.statusCode}`);
  });
  server.listen(0, host);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    port,
    url: `http://${host}:${port}`,
    requests,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

type Answer = (
  machine: MetadataMachine,
  request: IncomingMessage,
  response: ServerResponse,
  again: () => MetadataMachine | undefined,
) => void;

function ec2(tokens: Set<string>): Answer {
  return (machine, { method, url, headers }, response) => {
    if (url === '/latest/api/token') {
      const seconds = Number(headers['x-aws-ec2-metadata-token-ttl-seconds']);
      if (method !== 'PUT') return void response.writeHead(405).end();
      if (!(seconds >= 1 && seconds <= 21_600)) return void response.writeHead(400).end();
      const token = randomBytes(24).toString('base64');
      tokens.add(token);
      return void response.end(token);
    }
    const token = headers['x-aws-ec2-metadata-token'];
    if (typeof token !== 'string' || !tokens.has(token)) return void response.writeHead(401).end();
    if (url === '/latest/meta-data/instance-id') return void response.end(machine.id);
    const { spot } = machine;
    if (url === '/latest/meta-data/instance-life-cycle') return void response.end(spot ? 'spot' : 'on-demand');
    if (url === '/latest/meta-data/spot/instance-action' && spot?.notice !== undefined) {
      const time = new Date(spot.notice).toISOString().replace(/\.\d+Z$/, 'Z');
      return void response.end(JSON.stringify({ action: 'terminate', time }));
    }
    if (url === '/latest/user-data' && machine.userData !== undefined) return void response.end(machine.userData);
    response.writeHead(404).end();
  };
}

const gce: Answer = (machine, { method, url = '', headers }, response, again) => {
  response.setHeader('Metadata-Flavor', 'Google');
  const prefix = '/computeMetadata/v1/instance';
  const [zone = '', name = ''] = machine.id.split('/');
  const values: Readonly<Record<string, string | undefined>> = {
    [`${prefix}/name`]: name,
    [`${prefix}/zone`]: `projects/1234/zones/${zone}`,
    [`${prefix}/attributes/infralet-user-data`]: machine.userData,
    [`${prefix}/scheduling/preemptible`]: machine.spot ? 'TRUE' : 'FALSE',
    [`${prefix}/preempted`]: preempted(machine),
  };
  const { pathname, searchParams } = new URL(url, 'http://metadata');
  const value = values[pathname];
  if (method !== 'GET') response.writeHead(405).end();
  else if (headers['metadata-flavor'] !== 'Google') response.writeHead(403).end();
  else if (value === undefined) response.writeHead(404).end();
  else if (searchParams.get('wait_for_change') === 'true') {
    const text = (found: MetadataMachine | undefined): string => (found ? preempted(found) : '');
    const until = Date.now() + 1000 * Number(searchParams.get('timeout_sec'));
    const timer = setInterval(() => {
      if (text(again()) !== value || Date.now() >= until) response.end(text(again()));
    }, 10);
    response.once('close', () => clearInterval(timer));
  } else response.setHeader('content-type', 'application/text').end(value);
};

function preempted({ spot }: MetadataMachine): string {
  return spot?.notice === undefined ? 'FALSE' : 'TRUE';
}
