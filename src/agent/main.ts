/** The agent program: options and user data in, one TLS port out; runs until it is killed. */
import { logVerbosity, ServerCredentials, setLogVerbosity } from '@grpc/grpc-js';
import { errorMessage } from '../base/errors.ts';
import { systemClock } from '../base/time.ts';
import type { UserData } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { setClock } from './configure.ts';
import { type Containerd, connectContainerd } from './containerd.ts';
import { EventHub } from './events.ts';
import { Identity } from './identity.ts';
import { IncomingQueue } from './incoming.ts';
import { type Listener, listen } from './listener.ts';
import { createAgentLog, RefusalLog } from './log.ts';
import { type AgentOptions, LIMITS, parseOptions } from './options.ts';
import { VERSION } from './proto.ts';
import { Relay } from './relay.ts';
import { createServer } from './server.ts';
import { Phases } from './status.ts';
import { Tunnels } from './tunnel.ts';
import { readUserData } from './user-data.ts';

async function main(options: AgentOptions, log: Logger): Promise<void> {
  const phases = new Phases();
  phases.mark('agent');
  const userData = readUserData(options.userDataFile);
  await catchUp(userData, options, log);

  const ending = new AbortController();
  const refusals = new RefusalLog(log);
  const identity = new Identity(userData, options.stateDir);
  const containerd = connectContainerd(options.containerdSocket, userData.maxMessage);
  const incoming = new IncomingQueue(log);
  let listener: Listener | undefined;
  const server = createServer(
    {
      options,
      log,
      refusals,
      identity,
      containerd,
      relay: new Relay(containerd),
      events: new EventHub(containerd, log),
      tunnels: new Tunnels(options.streaming, incoming),
      incoming,
      phases,
      onCredentials: (credentials) => listener?.use(credentials),
      signal: ending.signal,
    },
    userData.maxMessage,
  );
  // TLS is the listener's business; behind it gRPC gets connections that are the daemon's.
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  listener = await listen({
    ...options.listen,
    cluster: userData.cluster,
    credentials: identity.credentials,
    refusals,
    onConnection: (socket) => injector.injectConnection(socket),
  });
  const imagesPort = await incoming.listen(options.images.host, options.images.port);
  phases.mark('listening');
  log.info('listening', {
    port: listener.port,
    imagesPort,
    version: VERSION,
    enrolled: identity.enrolled,
    sandboxId: userData.sandboxId,
    startedMs: Math.round(performance.now()),
  });
  void noteContainerd(containerd, phases, ending.signal);
}

/** No certificate is valid in 1970: a clock that is behind its own user data is moved up to it. */
async function catchUp(userData: UserData, options: AgentOptions, log: Logger): Promise<void> {
  if (Date.now() >= userData.clockMs) return;
  await setClock(userData.clockMs, options.dateCommand).catch((error: unknown) =>
    log.warn('the clock is behind the user data and cannot be set', { error: errorMessage(error) }),
  );
}

/** Notes when containerd answered for the first time, for the boot timeline. */
async function noteContainerd(containerd: Containerd, phases: Phases, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await containerd.ready(LIMITS.probeMs);
      const deadline = Date.now() + LIMITS.probeMs;
      await containerd.call('/runtime.v1.RuntimeService/Version', Buffer.alloc(0), deadline, signal);
      phases.mark('containerd');
      return;
    } catch {
      await systemClock.sleep(LIMITS.resubscribeMs, signal).catch(() => undefined);
    }
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
