/** NAT rules as iptables prints them: what CNI plugins made, found and removed when they cannot do it themselves. */
import { run, tryRun } from '../base/process.ts';

const TIMEOUT_MS = 10_000;
const PROGRAMS = ['iptables', 'ip6tables'] as const;
export type Iptables = (typeof PROGRAMS)[number];

/** Runs `action` for IPv4 and IPv6, with the rules of the nat table; left out where the program or the table is missing. */
export async function eachNatTable(
  action: (program: Iptables, rules: readonly string[]) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  for (const program of PROGRAMS) {
    const listed = await tryRun(program, ['-w', '-t', 'nat', '-S'], { signal, timeoutMs: TIMEOUT_MS });
    if (listed.exitCode === 0) await action(program, listed.stdout.split('\n'));
  }
}

/** Removes one rule given in the form "-A CHAIN …". */
export async function deleteRule(program: Iptables, rule: string, signal: AbortSignal): Promise<void> {
  await nat(program, ['-D', ...words(rule).slice(1)], signal);
}

export async function deleteChain(program: Iptables, chain: string, signal: AbortSignal): Promise<void> {
  await nat(program, ['-F', chain], signal);
  await nat(program, ['-X', chain], signal);
}

/**
 * Removes the masquerading rules that carry a sandbox's id. The bridge plugin finds its rules by the addresses inside the
 * namespace: once that is gone, by a reboot of the namespace's holder or by hand, its DEL leaves them behind for ever.
 */
export async function removeMasquerade(containerId: string, signal: AbortSignal): Promise<void> {
  await eachNatTable(async (program, rules) => {
    const jumps = rules.filter((rule) => rule.startsWith('-A POSTROUTING ') && rule.includes(containerId));
    const chains = new Set(jumps.flatMap((rule) => / -j (CNI-[0-9a-f]+)$/.exec(rule)?.[1] ?? []));
    for (const jump of jumps) await deleteRule(program, jump, signal);
    for (const chain of chains) await deleteChain(program, chain, signal);
  }, signal);
}

/** Splits a rule into words; those in double quotes may hold blanks and escaped quotes. */
export function words(rule: string): readonly string[] {
  return [...rule.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(
    (match) => match[1]?.replace(/\\(.)/g, '$1') ?? match[2] ?? '',
  );
}

async function nat(program: Iptables, args: readonly string[], signal: AbortSignal): Promise<void> {
  await run(program, ['-w', '-t', 'nat', ...args], { signal, timeoutMs: TIMEOUT_MS });
}
