/** `tc` ingress filters that pass packets from one device of a namespace to another, below the IP stack. */
import { tcBatch, tcShow, tryTcBatch } from './netns.ts';

/** What arrives at `from` and matches leaves through `to`. */
export interface Redirect {
  readonly from: string;
  readonly to: string;
  /** Only frames from this hardware address, or only IPv4 packets to this address. @default all */
  readonly only?: { readonly sourceMac: string } | { readonly destination: string };
}

/** Rules of one device are tried in their order. Idempotent. */
export async function redirect(netns: string, rules: readonly Redirect[], signal: AbortSignal): Promise<void> {
  const devices = [...new Set(rules.map(({ from }) => from))];
  // Nothing of it is there yet, but after a crash.
  const fresh = [...devices.map(qdisc), ...rules.map((rule) => filter(rule, rules))];
  if ((await tryTcBatch(netns, fresh, signal)).exitCode === 0) return;
  const qdiscs = (await tcShow(netns, ['qdisc', 'show'], signal)).split('\n');
  const lines: string[] = [];
  for (const device of devices) {
    const own = rules.filter(({ from }) => from === device);
    if (!qdiscs.some((line) => line.startsWith(`qdisc ingress ffff: dev ${device} `))) {
      lines.push(qdisc(device), ...own.map((rule) => filter(rule, rules)));
      continue;
    }
    const present = await tcShow(netns, ['filter', 'show', 'dev', device, 'ingress'], signal);
    const missing = own.filter((rule) => !present.includes(` pref ${priority(rule, rules)} `));
    lines.push(...missing.map((rule) => filter(rule, rules)));
  }
  if (lines.length > 0) await tcBatch(netns, lines, signal);
}

function qdisc(device: string): string {
  return `qdisc add dev ${device} ingress`;
}

function priority(rule: Redirect, all: readonly Redirect[]): number {
  return 1 + all.filter(({ from }) => from === rule.from).indexOf(rule);
}

/** u32 rather than matchall: some kernels are built without the latter, none without the former. */
function filter(rule: Redirect, all: readonly Redirect[]): string {
  const { from, to, only } = rule;
  let [protocol, match] = ['all', 'u32 0 0'];
  if (only)
    [protocol, match] =
      'sourceMac' in only ? ['all', `ether src ${only.sourceMac}`] : ['ip', `ip dst ${only.destination}`];
  return (
    `filter add dev ${from} parent ffff: protocol ${protocol} prio ${priority(rule, all)} u32 match ${match} ` +
    `action mirred egress redirect dev ${to}`
  );
}
