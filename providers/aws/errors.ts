/**
 * What EC2's error codes mean for a launch. Sources: the API's error list, and what node autoscalers have learned of codes
 * that are worded as failures and mean "try another zone".
 */
import { EC2ServiceException } from '@aws-sdk/client-ec2';
import { errorMessage, InfraletError, isAbortError } from '../../src/base/errors.ts';
import type { CloudFault } from '../../src/cloud/kit.ts';

type Meaning = Pick<CloudFault, 'kind' | 'scope'>;

const CODES: Readonly<Record<string, Meaning>> = {
  // HTTP 500, which SDKs take for a fault of the server and repeat at once: the zone has no such machine.
  InsufficientInstanceCapacity: { kind: 'no-capacity' },
  InsufficientHostCapacity: { kind: 'no-capacity' },
  InsufficientReservedInstanceCapacity: { kind: 'no-capacity' },
  ReservationCapacityExceeded: { kind: 'no-capacity' },
  UnfulfillableCapacity: { kind: 'no-capacity' },
  SpotMaxPriceTooLow: { kind: 'no-capacity' },
  InsufficientFreeAddressesInSubnet: { kind: 'no-capacity', scope: 'zone' },
  Unsupported: { kind: 'unsupported' },
  UnsupportedOperation: { kind: 'unsupported' },
  VcpuLimitExceeded: { kind: 'quota' },
  InstanceLimitExceeded: { kind: 'quota' },
  MaxSpotInstanceCountExceeded: { kind: 'quota' },
  VolumeLimitExceeded: { kind: 'quota' },
  PendingVerification: { kind: 'quota' },
  RequestLimitExceeded: { kind: 'throttled' },
  EC2ThrottledException: { kind: 'throttled' },
  InternalError: { kind: 'transient' },
  InternalFailure: { kind: 'transient' },
  Unavailable: { kind: 'transient' },
  ServiceUnavailable: { kind: 'transient' },
  'InvalidInstanceID.NotFound': { kind: 'not-found-yet' },
  // An id that never was one of EC2's.
  'InvalidInstanceID.Malformed': { kind: 'not-found-yet' },
  // Of leftovers that somebody else has removed.
  'InvalidVolume.NotFound': { kind: 'not-found-yet' },
  'InvalidNetworkInterfaceID.NotFound': { kind: 'not-found-yet' },
  'InvalidAllocationID.NotFound': { kind: 'not-found-yet' },
  IncorrectInstanceState: { kind: 'transient' },
  IncorrectState: { kind: 'transient' },
  UnauthorizedOperation: { kind: 'auth' },
  AuthFailure: { kind: 'auth' },
  'AuthFailure.ServiceLinkedRoleCreationNotPermitted': { kind: 'auth' },
  OptInRequired: { kind: 'auth' },
  ExpiredToken: { kind: 'auth' },
  RequestExpired: { kind: 'auth' },
};

/** A machine that was made and ended at once says in its state reason what the call did not. */
const STATE_REASONS: readonly (readonly [RegExp, Meaning['kind']])[] = [
  [/^Server\.InsufficientInstanceCapacity/, 'no-capacity'],
  [/^Server\.SpotInstanceTermination/, 'no-capacity'],
  [/^Client\.VolumeLimitExceeded/, 'quota'],
  [/^Server\.InternalError/, 'transient'],
];

export function classify(error: unknown): CloudFault {
  if (error instanceof EC2ServiceException) {
    const message = `EC2: ${error.message} (${error.name})`;
    return { ...meaning(error), message };
  }
  if (error instanceof InfraletError && error.code === 'INVALID_ARGUMENT') {
    return { kind: 'invalid', message: error.message };
  }
  // No credentials at all: the SDK's provider chain says so before it calls anything.
  if (error instanceof Error && error.name === 'CredentialsProviderError') {
    return { kind: 'auth', message: `EC2: ${error.message}` };
  }
  const what = isAbortError(error) || (error instanceof Error && error.name === 'TimeoutError') ? 'no answer' : '';
  return { kind: 'transient', message: `EC2: ${what || errorMessage(error)}` };
}

function meaning(error: EC2ServiceException): Meaning {
  const known = CODES[error.name];
  if (known) return known;
  if (/Throttl/i.test(error.name)) return { kind: 'throttled' };
  // A role or profile made a moment ago is not known everywhere yet.
  if (error.name === 'InvalidParameterValue' && /Invalid IAM Instance Profile/i.test(error.message)) {
    return { kind: 'not-found-yet' };
  }
  return (error.$metadata.httpStatusCode ?? 400) >= 500 ? { kind: 'transient' } : { kind: 'invalid' };
}

/** What a state reason's code says of a machine that ended without having been asked to; undefined for the usual ends. */
export function classifyStateReason(code: string): Meaning['kind'] | undefined {
  return STATE_REASONS.find(([pattern]) => pattern.test(code))?.[1];
}
