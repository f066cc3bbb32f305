/**
 * Joins a machine's tap to the namespace that CNI made: whatever arrives at the namespace's interface goes out of the tap
 * and the other way round, below the IP stack. The interface keeps its address and hardware address, so CNI's CHECK and
 * all rules on the node stay true, but the namespace's own stack sees no packet and answers none: the machine, which
 * has taken over both addresses, does.
 */
import { InfraletError } from '../base/errors.ts';
import { findLink, ip, moveLink, tcBatch, tcShow, tryTcBatch } from './netns.ts';

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
  await Promise.all([
    // No address of its own: the tap must say nothing to the machine that the pod's network did not.
    ip(['-n', netns, 'link', 'set', 'dev', tap, 'mtu', String(target.mtu), 'addrgenmode', 'none', 'up'], signal),
    redirectBoth(netns, ifName, tap, signal),
  ]);
}

async function redirectBoth(netns: string, a: string, b: string, signal: AbortSignal): Promise<void> {
  // Nothing of it is there yet, but after a crash.
  const fresh = [...complete(a, b), ...complete(b, a)];
  if ((await tryTcBatch(netns, fresh, signal)).exitCode === 0) return;
  const qdiscs = (await tcShow(netns, ['qdisc', 'show'], signal)).split('\n');
  const lines = [
    ...(await redirect({ netns, from: a, to: b }, qdiscs, signal)),
    ...(await redirect({ netns, from: b, to: a }, qdiscs, signal)),
  ];
  if (lines.length > 0) await tcBatch(netns, lines, signal);
}

/** The commands that are still missing for everything that arrives at `from` to leave through `to`. */
async function redirect(
  way: { readonly netns: string; readonly from: string; readonly to: string },
  qdiscs: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { netns, from, to } = way;
  if (!qdiscs.some((line) => line.startsWith(`qdisc ingress ffff: dev ${from} `))) return complete(from, to);
  const present = await tcShow(netns, ['filter', 'show', 'dev', from, 'ingress'], signal);
  return present.includes(`to device ${to})`) ? [] : [filter(from, to)];
}

function complete(from: string, to: string): readonly string[] {
  return [`qdisc add dev ${from} ingress`, filter(from, to)];
}

/** u32 rather than matchall: some kernels are built without the latter, none without the former. */
function filter(from: string, to: string): string {
  return `filter add dev ${from} parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress redirect dev ${to}`;
}
