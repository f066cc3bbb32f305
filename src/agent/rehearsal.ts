/**
 * A template enrols with itself once, over real TLS on loopback, and throws the result away: what an agent's first minute
 * needs is compiled, paged in and laid out when the clones wake up. The key made here is of no use to anybody: nothing
 * trusts it, and a clone makes its own from fresh randomness.
 */
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { Client, credentials, ServerCredentials } from '@grpc/grpc-js';
import type { AgentDefinition } from '../gen/infralet/agent/v1/Agent.ts';
import { NOBODYS_NETWORK, USER_DATA_VERSION, type UserData } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { newKey, privatePem, selfSigned, toPem } from './certificate.ts';
import type { Containerd } from './containerd.ts';
import { EventHub } from './events.ts';
import { Identity } from './identity.ts';
import { IncomingQueue } from './incoming.ts';
import { Interruptions } from './interruptions.ts';
import { Lease } from './lease.ts';
import { RefusalLog } from './log.ts';
import { Logs } from './logs.ts';
import type { AgentOptions } from './options.ts';
import { refresh } from './refresh.ts';
import { Relay } from './relay.ts';
import { Sampler } from './sampler.ts';
import { createServer } from './server.ts';
import { Shares } from './shares.ts';
import type { Phases } from './status.ts';
import { Tunnels } from './tunnel.ts';

const DEADLINE_MS = 20_000;
const MAX_MESSAGE = 1024 * 1024;

export async function rehearse(parts: {
  readonly service: AgentDefinition;
  readonly options: AgentOptions;
  readonly phases: Phases;
  readonly log: Logger;
  readonly containerd: Containerd;
}): Promise<void> {
  const { service, options, log, containerd } = parts;
  await refresh({ clockMs: 0, entropy: randomBytes(32) }, options);
  const key = newKey();
  const pem = { key: privatePem(key), cert: toPem(selfSigned(key, Date.now())) };
  const stateDir = join(options.stateDir, 'rehearsal');
  const identity = new Identity(stage(pem.cert), stateDir);
  const incoming = new IncomingQueue(log);
  const ending = new AbortController();
  const server = createServer(
    {
      ...parts,
      identity: {
        enrolled: true,
        enrol: (nonce) => identity.enrol(nonce),
        renew: () => identity.renew(),
        install: (chain) => identity.install(chain),
      },
      // Nothing is paid for a rehearsal.
      lease: new Lease(() => undefined),
      refusals: new RefusalLog(log),
      relay: new Relay(containerd),
      events: new EventHub(containerd, log),
      interruptions: new Interruptions(),
      sampler: new Sampler(options),
      tunnels: new Tunnels(options.streaming, incoming),
      incoming,
      shares: new Shares(options, incoming),
      logs: new Logs(options, log),
      rehearse: async () => undefined,
      onCredentials: () => undefined,
      signal: ending.signal,
    },
    service,
    MAX_MESSAGE,
  );
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const { key: tlsKey, chain, ca } = identity.credentials;
  const tls = createTlsServer(
    {
      key: tlsKey,
      cert: chain,
      ca,
      minVersion: 'TLSv1.3',
      requestCert: true,
      rejectUnauthorized: false,
      ALPNProtocols: ['h2'],
    },
    (socket) => {
      socket.getPeerX509Certificate();
      socket.getPeerCertificate();
      injector.injectConnection(socket);
    },
  );
  const { promise, resolve } = Promise.withResolvers<void>();
  tls.listen(0, '127.0.0.1', resolve);
  await promise;
  const { port } = tls.address() as AddressInfo;
  const client = new Client(
    `127.0.0.1:${port}`,
    credentials.createSsl(Buffer.from(chain), Buffer.from(pem.key), Buffer.from(pem.cert), {
      checkServerIdentity: () => undefined,
      rejectUnauthorized: false,
    }),
    { 'grpc.enable_channelz': 0, 'grpc.enable_http_proxy': 0 },
  );
  try {
    await play(client, service);
    tls.setSecureContext({ key: tlsKey, cert: chain, ca, minVersion: 'TLSv1.3' });
  } finally {
    client.close();
    ending.abort();
    server.forceShutdown();
    tls.close();
    rmSync(stateDir, { recursive: true, force: true });
  }
}

/** As for a pod, with nothing of any pod: the sandbox is made nobody's again afterwards (agent/pod-sandbox.ts). */
const REHEARSED = {
  clockNanos: '0',
  entropy: Buffer.alloc(0),
  podResources: { memoryBytes: '-1', cpuQuota: '-1', cpuPeriod: '100000', cpuShares: '0' },
  podSandbox: NOBODYS_NETWORK,
};

/** The calls of the first second, as the daemon makes them. Failing is part of the rehearsal: nothing is installed. */
async function play(client: Client, service: AgentDefinition): Promise<void> {
  const call = async (rpc: 'Enrol' | 'Install' | 'Configure' | 'Call', request: object): Promise<void> => {
    const { path } = service[rpc];
    const { promise, resolve } = Promise.withResolvers<void>();
    const { requestSerialize, responseDeserialize } = service[rpc] as {
      requestSerialize: (value: object) => Buffer;
      responseDeserialize: (bytes: Buffer) => object;
    };
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      { deadline: Date.now() + DEADLINE_MS },
      () => resolve(),
    );
    await promise;
  };
  await call('Enrol', { nonce: randomBytes(32) });
  await call('Install', { chain: [] });
  await call('Configure', REHEARSED);
  // Not Status: the kernel makes its boot id when it is first read, and that has to be in the clone.
  await call('Call', { method: '/runtime.v1.RuntimeService/ListPodSandbox', payload: Buffer.alloc(0) });
}

function stage(ca: string): UserData {
  return {
    version: USER_DATA_VERSION,
    cluster: 'rehearsal',
    sandboxId: '0'.repeat(32),
    token: '0'.repeat(43),
    ca,
    clockMs: Date.now(),
    entropy: '0'.repeat(43),
    maxMessage: MAX_MESSAGE,
  };
}
