/** Errors on their way out: only gRPC statuses leave the agent, and never a stack. */
import { type ServerErrorResponse, status } from '@grpc/grpc-js';
import { type ErrorCode, InfraletError } from '../base/errors.ts';

/** A status that containerd itself answered with: passed on as it is. */
function isStatus(error: unknown): error is { readonly code: status; readonly details: string } {
  return (
    error instanceof Error &&
    'code' in error &&
    typeof error.code === 'number' &&
    'details' in error &&
    typeof error.details === 'string'
  );
}

export function toStatus(error: unknown): Partial<ServerErrorResponse> {
  if (isStatus(error)) return { code: error.code, details: error.details };
  const known = InfraletError.from(error, codeOfErrno(error));
  return { code: status[known.code], details: known.message };
}

function codeOfErrno(error: unknown): ErrorCode {
  const errno = error instanceof Error && 'code' in error ? String(error.code) : '';
  return ERRNO[errno] ?? 'INTERNAL';
}

const ERRNO: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'NOT_FOUND',
  EEXIST: 'ALREADY_EXISTS',
  ENOTEMPTY: 'FAILED_PRECONDITION',
  EISDIR: 'FAILED_PRECONDITION',
  ENOTDIR: 'FAILED_PRECONDITION',
  EBUSY: 'FAILED_PRECONDITION',
  ELOOP: 'PERMISSION_DENIED',
  EACCES: 'PERMISSION_DENIED',
  EPERM: 'PERMISSION_DENIED',
  ENAMETOOLONG: 'INVALID_ARGUMENT',
  EINVAL: 'INVALID_ARGUMENT',
  ENOSPC: 'RESOURCE_EXHAUSTED',
  EDQUOT: 'RESOURCE_EXHAUSTED',
  EMFILE: 'RESOURCE_EXHAUSTED',
  ECONNREFUSED: 'UNAVAILABLE',
  ECONNRESET: 'UNAVAILABLE',
  EPIPE: 'UNAVAILABLE',
};
