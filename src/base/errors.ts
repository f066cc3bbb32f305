/**
 * The one error type of the code base. Every error names what failed, for whom (context), and what to do next (hint).
 * Codes are gRPC's canonical ones, so that the RPC layer needs no translation table of its own.
 */

export const ERROR_CODES = [
  'CANCELLED',
  'UNKNOWN',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
  'UNAUTHENTICATED',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

export interface ErrorOptions {
  /** What the reader can do about it: a command, a setting, a thing to check. */
  readonly hint?: string;
  /** Ids and values that name the victim: sandboxId, pod, containerId, image. */
  readonly context?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
}

export class InfraletError extends Error {
  override readonly name = 'InfraletError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly context: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.context = options.context ?? {};
  }

  /** The only entrance for foreign errors: never throws, keeps the original as `cause`. */
  static from(error: unknown, fallback: ErrorCode = 'INTERNAL'): InfraletError {
    if (error instanceof InfraletError) return error;
    if (isAbortError(error)) {
      const reason = error instanceof Error && error.cause instanceof InfraletError ? error.cause : undefined;
      return reason ?? new InfraletError('CANCELLED', 'the operation was cancelled', { cause: error });
    }
    if (isDiskFull(error)) {
      return new InfraletError('RESOURCE_EXHAUSTED', `a disk of the node is full: ${errorMessage(error)}`, {
        cause: error,
        hint: 'make room on the file system of stateDir (`df -h`); nothing is lost, and what waits goes on by itself',
      });
    }
    return new InfraletError(fallback, errorMessage(error), { cause: error });
  }
}

/** https://www.sqlite.org/rescode.html#full */
const SQLITE_FULL = 13;

/** No room for a file, or for a write to a SQLite database. */
function isDiskFull(error: unknown): boolean {
  if (hasErrno(error, 'ENOSPC', 'EDQUOT')) return true;
  return (
    hasErrno(error, 'ERR_SQLITE_ERROR') && error instanceof Error && 'errcode' in error && error.errcode === SQLITE_FULL
  );
}

/** True for what AbortSignal, node:timers/promises and fetch reject with when their signal fires. */
export function isAbortError(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || ('code' in error && error.code === 'ABORT_ERR'));
}

export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Guard for errors of node:fs and friends, by errno name. */
export function hasErrno(error: unknown, ...names: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && names.includes(error.code);
}
