/**
 * Joins a machine's tap to the namespace that CNI made: whatever arrives at the namespace's interface goes out of the tap
 * and the other way round, below the IP stack. The interface keeps its address and hardware address, so CNI's CHECK and
 * all rules on the node stay true, but the namespace's own stack sees no packet and answers none: the machine, which
 * has taken over both addresses, does.
 */
import { InfraletError } from '../base/errors.ts';
import { findLink, ip, tcBatch, tcShow } from './netns.ts';

export async function joinTap(
  target: { readonly netns: string; readonly ifName: string; readonly mtu: number; readonly tap: string },
  signal: AbortSignal,
): Promise<void> {
  const { netns, ifName, tap } = target;
  const inside = await findLink(netns, tap, signal);
  if (!inside) {
    if (!(await findLink(undefined, tap, signal))) {
      throw new InfraletError('FAILED_PRECONDITION', `the machine's tap ${tap} does not exist`, {
        hint: 'the machine has ended: its console says why',
      });
    }
    // The emulator holds the device by its descriptor and does not notice the move.
    await ip(['link', 'set', 'dev', tap, 'netns', netns], signal);
  }
  // No address of its own: the tap must say nothing to the machine that the pod's network did not.
  await ip(['-n', netns, 'link', 'set', 'dev', tap, 'mtu', String(target.mtu), 'addrgenmode', 'none', 'up'], signal);
  await redirect(netns, ifName, tap, signal);
  await redirect(netns, tap, ifName, signal);
}

/** Everything that arrives at `from` leaves through `to`. */
async function redirect(netns: string, from: string, to: string, signal: AbortSignal): Promise<void> {
  const present = await tcShow(netns, ['filter', 'show', 'dev', from, 'ingress'], signal);
  if (present.includes(`to device ${to})`)) return;
  const qdiscs = await tcShow(netns, ['qdisc', 'show', 'dev', from], signal);
  // u32 rather than matchall: some kernels are built without the latter, none without the former.
  const match = 'u32 match u32 0 0';
  await tcBatch(
    netns,
    [
      ...(qdiscs.includes('qdisc ingress') ? [] : [`qdisc add dev ${from} ingress`]),
      `filter add dev ${from} parent ffff: protocol all prio 1 ${match} action mirred egress redirect dev ${to}`,
    ],
    signal,
  );
}
