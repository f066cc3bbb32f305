/** Says what an error of this provider means for the reconciler. */
import { hasErrno, InfraletError, isAbortError } from '../../src/base/errors.ts';
import type { Fault, FaultKind } from '../../src/cloud/contract.ts';

const BY_CODE: Partial<Record<InfraletError['code'], FaultKind>> = {
  INVALID_ARGUMENT: 'invalid',
  FAILED_PRECONDITION: 'unsupported',
  UNIMPLEMENTED: 'unsupported',
  RESOURCE_EXHAUSTED: 'quota',
  PERMISSION_DENIED: 'auth',
  DATA_LOSS: 'terminal',
  NOT_FOUND: 'terminal',
};

/** There is no template for the machine, or none that can be used. */
export class NoTemplate extends InfraletError {
  constructor(message: string, cause?: unknown) {
    super('FAILED_PRECONDITION', message, { cause, hint: 'infralet template build' });
  }
}

export function classify(error: unknown): Fault {
  const wrapped = InfraletError.from(error);
  const message = wrapped.hint ? `${wrapped.message}; ${wrapped.hint}` : wrapped.message;
  return { kind: kind(error, wrapped), message };
}

function kind(error: unknown, wrapped: InfraletError): FaultKind {
  if (isAbortError(error)) return 'transient';
  if (error instanceof NoTemplate) return 'no-template';
  // The node is out of something that other machines hold now and may give back.
  if ([error, wrapped.cause].some((cause) => hasErrno(cause, 'ENOSPC', 'ENOMEM', 'EAGAIN', 'EMFILE', 'ENFILE'))) {
    return 'no-capacity';
  }
  if (/cannot allocate memory|no space left on device/i.test(wrapped.message)) return 'no-capacity';
  if (hasErrno(error, 'EACCES', 'EPERM')) return 'auth';
  return BY_CODE[wrapped.code] ?? 'transient';
}
