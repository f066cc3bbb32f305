/** The CRI server: both services on one unix socket, from start to drain. */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { AuthorityFilter } from '../rpc/authority-filter.ts';
import { CallTracker } from '../rpc/calls.ts';
import { FilteredConnection } from '../rpc/filtered-connection.ts';
import { loadCri } from '../rpc/load.ts';
import { listenUnix } from '../rpc/unix-listener.ts';
import type { CriDeps } from './deps.ts';
import { implementation, withItemwiseLists } from './service.ts';
import { slowMs } from './slow.ts';
import { IMAGE_TABLE, RUNTIME_TABLE } from './table.ts';

/** Answers that were just given have this long to reach clients that are slow to read. */
const CLOSE_MS = 1000;

export interface CriServer extends AsyncDisposable {
  /** Path of the unix socket. */
  readonly socket: string;
  /** Calls in progress. */
  readonly activeCalls: number;
  /**
   * Takes no more connections and calls, gives calls in progress `config.server.drain`, cuts the rest. Idempotent;
   * disposing of the server drains it first.
   */
  drain(): Promise<void>;
}

/** Resolves when clients can connect. Fails with FAILED_PRECONDITION when the socket is in use. */
export async function createCriServer(deps: CriDeps): Promise<CriServer> {
  const { config, clock } = deps;
  const log = deps.log.child({ component: 'cri' });
  const calls = new CallTracker();
  const grpc = new Server({
    'grpc.max_receive_message_length': config.server.maxMessage,
    'grpc.max_send_message_length': config.server.maxMessage,
    // Keeps a record of every socket and call for a debugging service that is not served here.
    'grpc.enable_channelz': 0,
  });
  const { RuntimeService, ImageService } = loadCri();
  const adapter = { calls, clock, log, slowMs, observe: deps.observe };
  const runtime = withItemwiseLists(RuntimeService.service);
  grpc.addService(runtime, implementation(runtime, RUNTIME_TABLE, deps, adapter));
  grpc.addService(ImageService.service, implementation(ImageService.service, IMAGE_TABLE, deps, adapter));
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  const listener = await listenUnix({
    path: config.server.socket,
    mode: Number.parseInt(config.server.socketMode, 8),
    onConnection: (socket) => injector.injectConnection(new FilteredConnection(socket, new AuthorityFilter())),
    onError: (error) => log.error('the CRI socket failed', { error }),
  });
  log.info('serving the CRI', { socket: listener.path });

  const shutDown = async (): Promise<void> => {
    listener.stop();
    const cut = await calls.drain(config.server.drain, clock);
    if (cut > 0) log.warn('calls were cut at shutdown', { calls: cut });
    // Tells clients to go and closes each connection when its last answer is out.
    injector.destroy();
    const late = new AbortController();
    await Promise.race([listener.quiet(), clock.sleep(CLOSE_MS, late.signal).catch(() => undefined)]);
    late.abort();
    await listener[Symbol.asyncDispose]();
    grpc.forceShutdown();
  };
  let draining: Promise<void> | undefined;
  const drain = async (): Promise<void> => {
    draining ??= shutDown();
    await draining;
  };
  return {
    socket: listener.path,
    get activeCalls() {
      return calls.size;
    },
    drain,
    [Symbol.asyncDispose]: drain,
  };
}
