/** Errors as gRPC statuses. The one place where an error leaves the daemon towards a client. */
import { Metadata, type StatusObject, status } from '@grpc/grpc-js';
import { type ErrorCode, InfraletError } from '../base/errors.ts';

/** The message travels percent-encoded in a header, which clients limit to 8 or 16 KiB. */
const MAX_DETAILS = 4096;

/** The status for an error; its message says what failed and what to do next. */
export function toStatus(error: InfraletError): StatusObject {
  const text = error.hint === undefined ? error.message : `${error.message}; ${error.hint}`;
  return { code: status[error.code], details: clip(text.toWellFormed()), metadata: new Metadata() };
}

/** Codes that mean a fault of ours, to be logged with its stack. */
export function isFault(code: ErrorCode): boolean {
  return code === 'INTERNAL' || code === 'UNKNOWN' || code === 'DATA_LOSS';
}

/**
 * What a call failed with. When the call itself has ended (deadline, client gone, shutdown), that is the reason,
 * whatever the interrupted work made of it. A foreign error is a bug or a lost race of ours: INTERNAL, whatever `code`
 * it carries, since grpc-js takes any number there for a status.
 */
export function callError(error: unknown, signal: AbortSignal): InfraletError {
  if (signal.aborted) return InfraletError.from(signal.reason, 'CANCELLED');
  return InfraletError.from(error, 'INTERNAL');
}

function clip(text: string): string {
  if (text.length <= MAX_DETAILS) return text;
  const half = MAX_DETAILS / 2;
  return `${text.slice(0, half)} … ${text.slice(-half)}`.toWellFormed();
}
