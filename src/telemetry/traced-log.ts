/** A logger that adds the trace to every line about a sandbox, so that the two can be found by each other. */
import type { Logger } from './log.ts';

/** @param traceOf the trace id of a sandbox; undefined: it is not traced. */
export function tracedLogger(log: Logger, traceOf: (sandboxId: string) => string | undefined): Logger {
  const withTrace = <T extends Readonly<Record<string, unknown>> | undefined>(
    fields: T,
  ): T | Record<string, unknown> => {
    const id = fields?.['sandboxId'];
    const traceId = typeof id === 'string' ? traceOf(id) : undefined;
    return traceId === undefined ? fields : { ...fields, traceId };
  };
  return {
    trace: (message, fields) => log.trace(message, withTrace(fields)),
    debug: (message, fields) => log.debug(message, withTrace(fields)),
    info: (message, fields) => log.info(message, withTrace(fields)),
    warn: (message, fields) => log.warn(message, withTrace(fields)),
    error: (message, fields) => log.error(message, withTrace(fields)),
    child: (fields) => tracedLogger(log.child({ ...withTrace(fields) }), traceOf),
  };
}
