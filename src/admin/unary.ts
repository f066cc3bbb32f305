/** One unary gRPC call as a promise: with a signal, a deadline and our own errors. */
import { type Client, Metadata, type MethodDefinition, type ServiceError, status } from '@grpc/grpc-js';
import { ERROR_CODES, type ErrorCode, InfraletError } from '../base/errors.ts';

export interface CallLimits {
  readonly signal: AbortSignal;
  /** Milliseconds until the call fails with DEADLINE_EXCEEDED. */
  readonly timeoutMs: number;
}

/** Rejects with the server's code and message; `server` names it where nobody answers. */
export async function callUnary<Request, Response>(
  client: Client,
  method: MethodDefinition<Request, Response>,
  request: Request,
  limits: CallLimits,
): Promise<Response> {
  limits.signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<Response>();
  const call = client.makeUnaryRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    request,
    new Metadata(),
    { deadline: Date.now() + limits.timeoutMs },
    (error, response) => {
      if (error) reject(fromStatus(error));
      else if (response === undefined) reject(new InfraletError('INTERNAL', `${method.path} answered nothing`));
      else resolve(response);
    },
  );
  const cancel = (): void => call.cancel();
  limits.signal.addEventListener('abort', cancel, { once: true });
  try {
    return await promise;
  } catch (error) {
    limits.signal.throwIfAborted();
    throw error;
  } finally {
    limits.signal.removeEventListener('abort', cancel);
  }
}

function fromStatus(error: ServiceError): InfraletError {
  const name = status[error.code];
  const code: ErrorCode = ERROR_CODES.find((known) => known === name) ?? 'UNKNOWN';
  // What grpc-js says when nothing listens at the socket, or when there is none.
  if (code === 'UNAVAILABLE' && /ENOENT|ECONNREFUSED|No connection established/.test(error.details)) {
    return new InfraletError('UNAVAILABLE', 'the daemon does not answer at its socket', {
      hint: 'start it with `npm start` (or `systemctl start infralet`), and give its --config FILE here, too',
      cause: error,
    });
  }
  if (code === 'UNAVAILABLE' && error.details.includes('EACCES')) {
    return new InfraletError('PERMISSION_DENIED', 'the socket of the daemon may not be used by this user', {
      hint: 'run the command as root',
      cause: error,
    });
  }
  return new InfraletError(code, error.details, { cause: error });
}
