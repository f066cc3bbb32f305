/**
 * Joins a machine's tap to the namespace that CNI made: whatever arrives at the namespace's interface goes out of the tap
 * and the other way round, below the IP stack. The interface keeps its address and hardware address, so CNI's CHECK and
 * all rules on the node stay true, but the namespace's own stack sees no packet and answers none: the machine, which
 * has taken over both addresses, does.
 */
import { InfraletError } from '../base/errors.ts';
import { findLink, ip, moveLink } from './netns.ts';
import { redirect } from './redirect.ts';

export async function joinTap(
  target: { readonly netns: string; readonly ifName: string; readonly mtu: number; readonly tap: string },
  signal: AbortSignal,
): Promise<void> {
  const { netns, ifName, tap } = target;
  // The emulator holds the device by its descriptor and does not notice the move.
  if (!(await moveLink(tap, netns, signal)) && !(await findLink(netns, tap, signal))) {
    throw new InfraletError('FAILED_PRECONDITION', `the machine's tap ${tap} does not exist`, {
      hint: 'the machine has ended: its console says why',
    });
  }
  const both = [
    { from: ifName, to: tap },
    { from: tap, to: ifName },
  ];
  await Promise.all([
    // No address of its own: the tap must say nothing to the machine that the pod's network did not.
    ip(['-n', netns, 'link', 'set', 'dev', tap, 'mtu', String(target.mtu), 'addrgenmode', 'none', 'up'], signal),
    redirect(netns, both, signal),
  ]);
}
