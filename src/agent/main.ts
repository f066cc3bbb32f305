/** The agent program: options and user data in, one TLS port out; runs until it is killed. */
import { randomBytes } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import { logVerbosity, ServerCredentials, setLogVerbosity } from '@grpc/grpc-js';
import { errorMessage, hasErrno } from '../base/errors.ts';
import type { UserData } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { cloudUserData } from './cloud-user-data.ts';
import { rehearseContainer } from './container-rehearsal.ts';
import { type Containerd, connectContainerd, noteContainerd } from './containerd.ts';
import { Door } from './door.ts';
import { EventHub } from './events.ts';
import { Identity } from './identity.ts';
import { IncomingQueue } from './incoming.ts';
import { Interruptions } from './interruptions.ts';
import { Lease } from './lease.ts';
import { type Listener, listen } from './listener.ts';
import { createAgentLog, RefusalLog } from './log.ts';
import { Logs } from './logs.ts';
import { type AgentOptions, parseOptions } from './options.ts';
import { awaitPod, templateSandbox } from './pod-sandbox.ts';
import { loadService, VERSION } from './proto.ts';
import { refresh } from './refresh.ts';
import { Relay } from './relay.ts';
import { Sampler } from './sampler.ts';
import { createServer } from './server.ts';
import { Shares } from './shares.ts';
import { powerOff, shutDown } from './shutdown.ts';
import { Phases } from './status.ts';
import { becomeClone } from './template.ts';
import { Tunnels } from './tunnel.ts';
import { readUserData } from './user-data.ts';

/** For the containers of a machine whose lease has run out: nobody waits for them any more. */
const LEASE_GRACE_MS = 10_000;

async function main(options: AgentOptions, log: Logger): Promise<void> {
  const phases = new Phases();
  phases.mark('agent');
  const refusals = new RefusalLog(log);
  const service = loadService();
  const door = await Door.open(options.listen.host, options.listen.port, refusals);
  const ending = new AbortController();
  const userData =
    options.metadata !== '' && !existsSync(options.userDataFile)
      ? await askCloud(options, log, ending.signal)
      : (readUserData(options.userDataFile) ??
        (await becomeClone({ door, service, options, phases, log, signal: ending.signal })));
  await catchUp(userData, options, log);
  nameMachine(options, log);

  const lease = new Lease(() => {
    log.error('the lease has run out: this machine has lost its node and powers itself off');
    void shutDown(LEASE_GRACE_MS, containerd, options, log);
  });
  lease.renew(userData.leaseMs ?? 0);
  const identity = new Identity(userData, options.stateDir);
  const containerd = connectContainerd(options.containerdSocket, userData.maxMessage);
  const incoming = new IncomingQueue(log);
  const shares = new Shares(options, incoming);
  const interruptions = new Interruptions();
  let listener: Listener | undefined;
  const rehearsal = Promise.withResolvers<void>();
  let rehearses = false;
  const server = createServer(
    {
      options,
      log,
      refusals,
      identity,
      lease,
      containerd,
      relay: new Relay(containerd),
      events: new EventHub(containerd, log),
      sampler: new Sampler(options),
      interruptions,
      tunnels: new Tunnels(options.streaming, incoming),
      incoming,
      shares,
      phases,
      logs: new Logs(options, log),
      rehearse: async (container) => {
        if (!rehearses) rehearsal.resolve(rehearsePod(container ? containerd : undefined, incoming, options));
        rehearses = true;
        await rehearsal.promise;
      },
      onCredentials: (credentials) => listener?.use(credentials),
      signal: ending.signal,
    },
    service,
    userData.maxMessage,
  );
  // TLS is the listener's business; behind it gRPC gets connections that are the daemon's.
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  listener = listen({
    door,
    cluster: userData.cluster,
    credentials: identity.credentials,
    refusals,
    onConnection: (socket) => injector.injectConnection(socket),
  });
  const imagesPort = await incoming.listen('images', options.images.host, options.images.port);
  await shares.resume();
  phases.mark('listening');
  log.info('listening', {
    port: door.port,
    imagesPort,
    version: VERSION,
    enrolled: identity.enrolled,
    sandboxId: userData.sandboxId,
    startedMs: Math.round(performance.now()),
  });
  if (options.metadata !== '') void interruptions.watch(options.metadata, log, ending.signal);
  // A clone's containerd answered before the clone was made.
  if (!phases.cloned) void noteContainerd(containerd, phases, ending.signal);
}

/** A machine that its cloud tells nothing belongs to nobody, and nobody else would end it: it goes off. */
async function askCloud(options: AgentOptions, log: Logger, signal: AbortSignal): Promise<UserData> {
  const { metadata: base, metadataMs: timeoutMs } = options;
  try {
    return await cloudUserData({ base, timeoutMs, log, signal });
  } catch (error) {
    log.error('this machine has no user data and powers itself off', { error: errorMessage(error) });
    await powerOff(options, log);
    throw error;
  }
}

/** The connections of containerd to the node's registry are the rehearsal's meanwhile: there is no pod that could miss them. */
async function rehearsePod(
  containerd: Containerd | undefined,
  incoming: IncomingQueue,
  options: AgentOptions,
): Promise<void> {
  const id = templateSandbox(options);
  if (id === '') return;
  if (containerd) {
    await rehearseContainer(id, containerd, options, async (onConnection) => {
      const diversion = incoming.divert('images', onConnection);
      return { [Symbol.asyncDispose]: async () => diversion[Symbol.dispose]() };
    });
  }
  await awaitPod(options);
}

/** No certificate is valid in 1970: a clock that is behind its own user data is moved up to it. */
async function catchUp(userData: UserData, options: AgentOptions, log: Logger): Promise<void> {
  if (Date.now() >= userData.clockMs) return;
  await refresh({ clockMs: userData.clockMs, entropy: Buffer.alloc(0) }, options).catch((error: unknown) =>
    log.warn('the clock is behind the user data and cannot be set', { error: errorMessage(error) }),
  );
}

/** machine-id(5): random, kept as long as the machine runs. */
function nameMachine({ machineIdFile }: AgentOptions, log: Logger): void {
  try {
    writeFileSync(machineIdFile, `${randomBytes(16).toString('hex')}\n`, { flag: 'wx', mode: 0o444 });
  } catch (error) {
    if (!hasErrno(error, 'EEXIST')) log.warn('the machine has no id', { error: errorMessage(error) });
  }
}

const log = createAgentLog({ component: 'agent' });
setLogVerbosity(logVerbosity.NONE);
// init starts the agent again; containers do not notice.
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    log.error('the agent fails', {
      event,
      error: errorMessage(error),
      stack: error instanceof Error ? error.stack : '',
    });
    process.exit(70);
  });
}
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => process.exit(0));
main(parseOptions(process.argv.slice(2)), log).catch((error: unknown) => {
  log.error('the agent cannot start', { error: errorMessage(error) });
  process.exit(1);
});
