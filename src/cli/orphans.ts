/** `infralet orphans [--delete]`: what carries this node's name and belongs to no sandbox. */
import type { AdminClient } from '../admin/client.ts';
import { printable } from '../base/text.ts';
import { formatAge, formatTable } from './format.ts';
import { type Io, line } from './io.ts';

const TIMEOUT_MS = 60_000;
/** Ending machines of a cloud that throttles takes its time. */
const REMOVE_MS = 300_000;

const OUTCOMES = {
  removed: 'removed',
  young: 'left alone: it may be in the making; the sweep removes it when it is old enough',
  gone: 'gone, or somebody owns it by now',
  failed: 'could not be removed',
} as const;

/** Returns false when something that was to be removed could not be. */
export async function orphans(
  admin: Pick<AdminClient, 'orphans' | 'removeOrphans'>,
  io: Io,
  options: { readonly json: boolean; readonly delete: boolean },
): Promise<boolean> {
  const found = await admin.orphans({ signal: io.signal, timeoutMs: TIMEOUT_MS });
  const removals =
    options.delete && found.length > 0
      ? await admin.removeOrphans(found, { signal: io.signal, timeoutMs: REMOVE_MS })
      : [];
  const outcomes = new Map(removals.map((each) => [`${each.kind}/${each.id}`, each]));
  const rows = found.map((orphan) => ({ ...orphan, removal: outcomes.get(`${orphan.kind}/${orphan.id}`) ?? null }));
  if (options.json) line(io.out, JSON.stringify(rows, undefined, 2));
  else if (rows.length === 0) line(io.out, 'nothing is without an owner');
  else {
    const header = ['KIND', 'ID', 'AGE', 'USD/HOUR', 'SANDBOX', ...(options.delete ? ['OUTCOME'] : [])];
    const cells = rows.map(({ kind, id, ageMs, pricePerHour, sandboxId, removal }) => [
      kind,
      printable(id),
      formatAge(ageMs),
      pricePerHour === null ? '-' : pricePerHour.toFixed(4),
      sandboxId === '' ? '-' : printable(sandboxId),
      ...(removal
        ? [`${OUTCOMES[removal.outcome]}${removal.reason === '' ? '' : `: ${printable(removal.reason)}`}`]
        : []),
    ]);
    line(io.out, formatTable(header, cells));
    const sum = rows.reduce((total, { pricePerHour }) => total + (pricePerHour ?? 0), 0);
    if (sum > 0) line(io.out, `together ${sum.toFixed(4)} USD per hour`);
  }
  return removals.every(({ outcome }) => outcome !== 'failed');
}
