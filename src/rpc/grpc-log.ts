/** Sends what grpc-js would print to stderr to our log. grpc-js has one logger per process: called once, by a program. */
import { format } from 'node:util';
import { logVerbosity, setLogger, setLogVerbosity } from '@grpc/grpc-js';
import type { Logger } from '../telemetry/log.ts';

export function routeGrpcLog(log: Logger): void {
  const grpc = log.child({ component: 'grpc' });
  setLogVerbosity(logVerbosity.ERROR);
  setLogger({
    error: (...parts: readonly unknown[]) => grpc.warn('grpc-js reported an error', { detail: format(...parts) }),
    info: (...parts: readonly unknown[]) => grpc.debug('grpc-js reported', { detail: format(...parts) }),
    debug: (...parts: readonly unknown[]) => grpc.trace('grpc-js reported', { detail: format(...parts) }),
  });
}
