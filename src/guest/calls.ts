/** One unary RPC as a promise: deadline, cancellation, and gRPC statuses as InfraletErrors of the same code. */
import { type ClientUnaryCall, type CallOptions as GrpcCallOptions, type ServiceError, status } from '@grpc/grpc-js';
import { ERROR_CODES, type ErrorCode, InfraletError } from '../base/errors.ts';
import type { CallOptions } from './channel.ts';
import { misconduct } from './conduct.ts';

type Start<Reply> = (
  options: GrpcCallOptions,
  callback: (error: ServiceError | null, reply?: Reply) => void,
) => ClientUnaryCall;

export async function unary<Reply>(rpc: string, options: CallOptions, start: Start<Reply>): Promise<Reply> {
  options.signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<Reply>();
  const call = start({ deadline: Date.now() + options.timeoutMs }, (error, reply) => {
    if (error) reject(fromStatus(error, options.signal));
    else if (reply === undefined) reject(new InfraletError('INTERNAL', `the agent answered ${rpc} with nothing`));
    else resolve(reply);
  });
  const cancel = (): void => call.cancel();
  options.signal.addEventListener('abort', cancel, { once: true });
  try {
    return await promise;
  } finally {
    options.signal.removeEventListener('abort', cancel);
  }
}

const CODE_NAMES: ReadonlyMap<number, ErrorCode> = new Map(ERROR_CODES.map((name) => [status[name], name]));
/** Messages come from the guest: enough for containerd's longest, not enough to fill a log. */
const MAX_MESSAGE = 4096;

/** What gRPC itself says of messages that it refuses. */
const BREACHES = [
  { code: 'INTERNAL', pattern: /^Response message parsing error: /, as: 'DATA_LOSS' },
  { code: 'RESOURCE_EXHAUSTED', pattern: /^Received message (larger|that decompresses)/, as: 'RESOURCE_EXHAUSTED' },
] as const;

/** The signal's own reason when we cancelled; otherwise the status' code and message. */
export function fromStatus(error: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason;
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'number') {
    return InfraletError.from(error, 'UNAVAILABLE');
  }
  const details = 'details' in error && typeof error.details === 'string' ? error.details : error.message;
  const breach = BREACHES.find(({ code, pattern }) => status[code] === error.code && pattern.test(details));
  if (breach) return misconduct(breach.as, details.slice(0, MAX_MESSAGE));
  return new InfraletError(CODE_NAMES.get(error.code) ?? 'UNKNOWN', details.slice(0, MAX_MESSAGE), { cause: error });
}

/** A signal for one call: the caller's and the channel's. */
export function both(a: AbortSignal, b: AbortSignal): AbortSignal {
  return AbortSignal.any([a, b]);
}
