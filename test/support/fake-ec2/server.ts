/** A fake EC2 on a loopback port: real HTTP for a real SDK, with the published limits in force. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { ACTIONS } from './actions.ts';
import { type BucketName, TokenBuckets } from './buckets.ts';
import { Ec2Fault, FakeCloud, type FakeCloudOptions } from './cloud.ts';
import type { FakeEbs } from './ebs.ts';
import { parseParams } from './params.ts';
import { toXml } from './xml.ts';

export interface FakeEc2 extends AsyncDisposable {
  readonly endpoint: string;
  readonly cloud: FakeCloud;
  /** Snapshots and images; its REST calls go to the same address. */
  readonly ebs: FakeEbs;
  /** Every call with its time and outcome: `ok` or the error's code. */
  readonly calls: readonly { readonly action: string; readonly at: number; readonly outcome: string }[];
}

export async function startFakeEc2(
  options: Partial<FakeCloudOptions> & { readonly limits?: boolean } = {},
): Promise<FakeEc2> {
  const now = options.now ?? Date.now;
  const defaults = { pendingMs: 0, lagMs: 0, types: TYPES, zones: ['z-1a', 'z-1b'], network: '10.20' };
  const cloud = new FakeCloud({ ...defaults, ...options, now });
  const buckets = new TokenBuckets(now);
  const calls: { action: string; at: number; outcome: string }[] = [];

  const { ebs } = cloud;
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (request.url?.startsWith('/snapshots')) return await ebs.answer(request, response);
    const params = parseParams(await text(request));
    const action = params.text('Action') ?? '';
    const call = { action, at: now(), outcome: 'ok' };
    calls.push(call);
    try {
      const perform = ACTIONS[action];
      if (!perform) throw new Ec2Fault('InvalidAction', `the fake knows no action ${action}`);
      if (options.limits !== false) throttle(buckets, action, Number(params.text('MaxCount') ?? 1));
      const before = cloud.fault(action, 'before');
      if (before) throw before;
      const result = await perform(cloud, params);
      const after = cloud.fault(action, 'after');
      if (after) throw after;
      response.setHeader('content-type', 'text/xml');
      response.end(
        `<${action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">${toXml(result)}</${action}Response>`,
      );
    } catch (error) {
      const fault = error instanceof Ec2Fault ? error : new Ec2Fault('InternalError', String(error), 500);
      call.outcome = fault.code;
      if (fault.code === 'lost') {
        response.destroy();
        return;
      }
      response.statusCode = fault.status;
      response.setHeader('content-type', 'text/xml');
      const errors = toXml([{ Code: fault.code, Message: fault.message }]).replaceAll('item>', 'Error>');
      response.end(`<Response><Errors>${errors}</Errors><RequestID>fake</RequestID></Response>`);
    }
  };
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    cloud,
    ebs,
    calls,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

function throttle(buckets: TokenBuckets, action: string, machines: number): void {
  const bucket: BucketName =
    action.startsWith('Describe') || action.startsWith('Get') ? 'read' : (CLASSES[action] ?? 'change');
  const enough = buckets.take(bucket) && (bucket !== 'run' || buckets.take('runResources', machines));
  if (!enough) throw new Ec2Fault('RequestLimitExceeded', 'Request limit exceeded.', 503);
}

const CLASSES: Readonly<Record<string, BucketName>> = { RunInstances: 'run', TerminateInstances: 'terminate' };

const TYPES = [
  { name: 't3.small', cpus: 2, memoryMib: 2048, architecture: 'x86_64', spotPrice: 0.0062 },
  { name: 'm7i.large', cpus: 2, memoryMib: 8192, architecture: 'x86_64', spotPrice: 0.04 },
  { name: 'm7i.xlarge', cpus: 4, memoryMib: 16_384, architecture: 'x86_64', spotPrice: 0.08 },
  { name: 'c7i.large', cpus: 2, memoryMib: 4096, architecture: 'x86_64', spotPrice: 0.036 },
  {
    name: 'g5.xlarge',
    cpus: 4,
    memoryMib: 16_384,
    architecture: 'x86_64',
    gpus: { name: 'A10G', count: 1 },
    spotPrice: 0.4,
  },
] as const;
