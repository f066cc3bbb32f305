/**
 * What Compute Engine's errors mean. What a zone lacks is told by no call, only later by the operation that
 * the call began.
 */
import { errorMessage, InfraletError, isAbortError } from '../../src/base/errors.ts';
import type { CloudFault } from '../../src/cloud/kit.ts';

type Meaning = Pick<CloudFault, 'kind' | 'scope'>;

/** An operation that ended with an error. */
export class OperationError extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** By what a code contains: the cloud appends words such as _WITH_DETAILS to codes that it has had for years. */
const OPERATION_CODES: readonly (readonly [RegExp, Meaning])[] = [
  [/RESOURCE_POOL_EXHAUSTED|STOCKOUT/, { kind: 'no-capacity' }],
  [/IP_SPACE_EXHAUSTED/, { kind: 'no-capacity', scope: 'zone' }],
  [/QUOTA/, { kind: 'quota' }],
  [/RATE_LIMIT|rateLimitExceeded/, { kind: 'throttled' }],
  [/PERMISSIONS_ERROR|FORBIDDEN/, { kind: 'auth' }],
  [/CONDITION_NOT_MET|conditionNotMet/, { kind: 'invalid' }],
  [/UNSUPPORTED_OPERATION|NOT_SUPPORTED/, { kind: 'unsupported' }],
  [/RESOURCE_NOT_FOUND/, { kind: 'not-found-yet' }],
  [/INTERNAL_ERROR|BACKEND_ERROR|TIMEOUT/, { kind: 'transient' }],
];

export function classify(error: unknown): CloudFault {
  if (error instanceof OperationError) {
    const meaning = OPERATION_CODES.find(([pattern]) => pattern.test(error.code))?.[1] ?? { kind: 'invalid' as const };
    return { ...meaning, message: `Compute Engine: ${error.message} (${error.code})` };
  }
  if (error instanceof InfraletError && error.code === 'INVALID_ARGUMENT') {
    return { kind: 'invalid', message: error.message };
  }
  const { status, reason } = httpError(error);
  const message = errorMessage(error);
  if (status !== undefined) {
    const words = `Compute Engine: ${message} (HTTP ${status}${reason === '' ? '' : `, ${reason}`})`;
    return { ...ofStatus(status, reason, message), message: words };
  }
  return { kind: 'transient', message: `Compute Engine: ${isAbortError(error) ? 'no answer' : message}` };
}

function ofStatus(status: number, reason: string, message: string): Meaning {
  const known = OPERATION_CODES.find(([pattern]) => pattern.test(reason))?.[1];
  if (known) return known;
  // The client drops the reason of older answers and keeps the sentence; a rate that is exceeded comes as "forbidden".
  if (status === 429 || (status === 403 && /rate limit|per minute/i.test(message))) return { kind: 'throttled' };
  if (status === 403 && /quota/i.test(message)) return { kind: 'quota' };
  if (status === 401 || status === 403) return { kind: 'auth' };
  if (status === 404) return { kind: 'not-found-yet' };
  return { kind: status >= 500 ? 'transient' : 'invalid' };
}

/** What the client's error says of the HTTP answer behind it. */
export function httpError(error: unknown): { readonly status: number | undefined; readonly reason: string } {
  if (!(error instanceof Error)) return { status: undefined, reason: '' };
  const status = 'httpStatusCode' in error ? error.httpStatusCode : undefined;
  const reason = 'reason' in error ? error.reason : undefined;
  return {
    status: typeof status === 'number' ? status : undefined,
    reason: typeof reason === 'string' ? reason : '',
  };
}
