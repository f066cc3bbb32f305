/** `infralet serve`: the daemon, until a signal ends it. Machines go on without it. */
import { once } from 'node:events';
import { errorMessage, type InfraletError } from '../base/errors.ts';
import { tryRun } from '../base/process.ts';
import type { Config } from '../config/schema.ts';
import { routeGrpcLog } from '../rpc/grpc-log.ts';
import { createLogger, type Logger } from '../telemetry/log.ts';
import { type Io, line } from './io.ts';

/** The composition root's `startDaemon`: resolves when the CRI is served; disposing drains and stops. */
type StartDaemon = (config: Config, log: Logger, signal: AbortSignal) => Promise<AsyncDisposable>;

export interface ServeOptions {
  readonly startDaemon: StartDaemon;
  /** Runs after the daemon serves; disposing removes what it made. */
  readonly demo: ((config: Config, io: Io) => Promise<AsyncDisposable>) | undefined;
  /** For the log format `auto`. */
  readonly terminal: boolean;
}

/** Serves until `io.signal` fires. Rejects when the daemon cannot start; a failed demo is told and the daemon goes on. */
export async function serve(config: Config, io: Io, options: ServeOptions): Promise<void> {
  const automatic = options.terminal ? 'pretty' : 'json';
  const log = createLogger({
    level: config.log.level,
    components: config.log.components,
    format: config.log.format === 'auto' ? automatic : config.log.format,
  });
  routeGrpcLog(log);
  await using stack = new AsyncDisposableStack();
  stack.use(await options.startDaemon(config, log, io.signal));
  await notifySystemd('READY=1', log);
  line(io.err, `serving the CRI at unix://${config.server.socket}`);
  if (options.demo) {
    try {
      stack.use(await options.demo(config, io));
    } catch (error) {
      if (!io.signal.aborted) reportDemo(io, error);
    }
  }
  if (!io.signal.aborted) await once(io.signal, 'abort');
  await notifySystemd('STOPPING=1', log);
}

function reportDemo(io: Io, error: unknown): void {
  line(io.err, `the demo pod failed: ${errorMessage(error)}`);
  const hint = (error as Partial<InfraletError>).hint;
  if (hint !== undefined) line(io.err, `  → ${hint}`);
  line(io.err, 'the daemon goes on serving');
}

/** Tells systemd, where it started us (Type=notify). */
async function notifySystemd(state: string, log: Logger): Promise<void> {
  if (process.env['NOTIFY_SOCKET'] === undefined) return;
  try {
    await tryRun('systemd-notify', [`--pid=${process.pid}`, state], {
      signal: new AbortController().signal,
      timeoutMs: 5000,
    });
  } catch (error) {
    log.warn('systemd could not be told', { reason: errorMessage(error) });
  }
}
