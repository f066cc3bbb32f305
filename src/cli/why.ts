/** `infralet why POD`: what was asked when, what was done, how long it took, and what went wrong or is waited for. */
import { z } from 'zod';
import type { AdminClient } from '../admin/client.ts';
import { printable } from '../base/text.ts';
import { systemClock } from '../base/time.ts';
import { formatAge, formatTable, indent } from './format.ts';
import { type Io, line } from './io.ts';

const TIMEOUT_MS = 30_000;

const text = z.string().catch('');
const summary = z.object({
  id: text,
  podUid: text,
  podName: text,
  podNamespace: text,
  pool: text,
  attempt: z.number().catch(0),
  state: text,
  createdAt: z.number().catch(0),
  removedAt: z.number().nullable().catch(null),
});
const event = z.object({
  ms: z.number().catch(0),
  kind: text,
  outcome: text,
  tookMs: z.number().optional().catch(undefined),
  name: text,
  text,
});
/** Fields that are missing or of another type read as empty: a daemon may be older or newer than this command. */
const whySchema = summary.extend({
  instanceId: text,
  start: text,
  purchase: z
    .object({ type: z.string(), zone: z.string(), market: z.string(), pricePerHour: z.number() })
    .nullable()
    .catch(null),
  traceId: text,
  verdict: z.object({ kind: text, text, next: text }).catch({ kind: 'unknown', text: '', next: '' }),
  events: z.array(event).catch([]),
  consoleTail: text,
  others: z.array(summary).catch([]),
});
type Why = z.output<typeof whySchema>;

export async function why(
  admin: Pick<AdminClient, 'why'>,
  pod: string,
  io: Io,
  options: { readonly json: boolean; readonly now?: number },
): Promise<void> {
  const raw = await admin.why(pod, { signal: io.signal, timeoutMs: TIMEOUT_MS });
  if (options.json) {
    line(io.out, JSON.stringify(raw, undefined, 2));
    return;
  }
  const known = whySchema.parse(raw);
  const now = options.now ?? systemClock.now();
  line(io.out, `${nameOf(known)} (attempt ${known.attempt}, sandbox ${known.id.slice(0, 13)})`);
  line(io.out, `${known.verdict.kind}: ${printable(known.verdict.text)}`);
  if (known.verdict.next !== '') line(io.out, `  → ${known.verdict.next}`);
  for (const fact of facts(known, now)) line(io.out, `  ${fact}`);
  section(io, 'What happened (milliseconds since it was asked for)', eventTable(known));
  const console = printable(known.consoleTail).trimEnd();
  if (console !== '') section(io, 'End of the console (written by the guest)', indent(console));
  if (known.others.length > 0) section(io, 'Others of this name', indent(otherTable(known, now)));
}

function nameOf({ podNamespace, podName, pool }: z.output<typeof summary>): string {
  return printable(podName === '' ? `a machine of pool ${pool || 'unknown'}` : `${podNamespace}/${podName}`);
}

function facts(known: Why, now: number): readonly string[] {
  const { purchase, start, instanceId, removedAt, traceId } = known;
  const how = { clone: 'cloned', boot: 'booted', pool: 'taken from a pool' }[start];
  const bought = purchase
    ? `, ${purchase.type} in ${purchase.zone} (${purchase.market}), $${purchase.pricePerHour}/h`
    : '';
  return [
    `asked for ${formatAge(now - known.createdAt)} ago${removedAt === null ? '' : `, removed ${formatAge(now - removedAt)} ago`}`,
    ...(instanceId === '' ? [] : [printable(`machine ${instanceId}${how === undefined ? '' : `, ${how}`}${bought}`)]),
    ...(traceId === '' ? [] : [`trace ${traceId}`]),
  ];
}

function eventTable({ events }: Why): string {
  if (events.length === 0) return '  nothing is known';
  const rows = events.map((each) => ({ ...each, text: printable(each.text).trim().split('\n') }));
  const at = Math.max(...rows.map(({ ms }) => String(Math.round(ms)).length));
  return rows
    .map((row) => {
      const [first = '', ...rest] = row.text;
      const head = `  ${String(Math.round(row.ms)).padStart(at)}  ${sentence(row, first)}`;
      return [head, ...rest.map((more) => `${' '.repeat(at + 6)}${more}`)].join('\n');
    })
    .join('\n');
}

function sentence({ kind, outcome, name, tookMs }: Omit<z.output<typeof event>, 'text'>, words: string): string {
  const took = tookMs === undefined ? '' : ` ${Math.round(tookMs)} ms`;
  switch (kind) {
    case 'step': {
      const mark = { done: 'done in', failed: 'FAILED after', open: 'under way for' }[outcome];
      const state = mark === undefined || took === '' ? outcome : `${mark}${took}`;
      return `${printable(name)}: ${state}${words === '' ? '' : `: ${words}`}`;
    }
    case 'note':
      return `${printable(name)}: ${words}`;
    default:
      return words;
  }
}

function otherTable({ others }: Why, now: number): string {
  return formatTable(
    ['SANDBOX', 'POD', 'ATTEMPT', 'STATE', 'AGE'],
    others.map((other) => [
      other.id.slice(0, 13),
      nameOf(other),
      String(other.attempt),
      other.removedAt === null ? other.state : `${other.state}, removed`,
      formatAge(now - other.createdAt),
    ]),
  );
}

function section(io: Io, title: string, body: string): void {
  line(io.out);
  line(io.out, `${title}:`);
  line(io.out, body);
}
