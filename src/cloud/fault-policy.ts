/** What follows from a fault of a launch: one table for all clouds. */
import type { FaultKind } from './contract.ts';

export type LaunchReaction =
  /** The same call with the same token, later: it may have worked. */
  | 'repeat'
  /** The offer is remembered as unavailable and the next best one asked for at once. */
  | 'next-offer'
  /** Nothing of this market for a while: the other market, if the pod takes it. */
  | 'next-market'
  /** The pod fails with the reason. */
  | 'fail';

export const LAUNCH_REACTIONS: Readonly<Record<FaultKind, LaunchReaction>> = {
  throttled: 'repeat',
  transient: 'repeat',
  'not-found-yet': 'repeat',
  'no-capacity': 'next-offer',
  // A type that this account or zone does not have is one more offer that is not to be had.
  unsupported: 'next-offer',
  quota: 'next-market',
  invalid: 'fail',
  auth: 'fail',
  'no-template': 'fail',
  terminal: 'fail',
};
