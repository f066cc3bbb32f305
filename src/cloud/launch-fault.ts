/** Why a launch came to nothing. */
import type { Choice } from './choice.ts';
import type { CloudFault } from './driver.ts';

/** A launch that came to nothing, with the fault that decided it. */
export class LaunchFault extends Error {
  readonly fault: CloudFault;
  constructor(fault: CloudFault) {
    super(fault.message);
    this.fault = fault;
  }
}

export function noOffer({ rejected }: Choice, last: CloudFault | undefined): CloudFault {
  if (last) return last;
  // Of many reasons the one that rules out most says most.
  const counts = new Map<string, number>();
  for (const { reason } of rejected) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const top = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 3);
  const why = top.map(([reason, count]) => `${count} × ${reason}`).join('; ');
  return { kind: 'no-capacity', message: `none of ${rejected.length} offers fits: ${why || 'the catalogue is empty'}` };
}
