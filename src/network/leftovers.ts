/**
 * What the reference CNI plugins leave on a node when the last pod has gone: the bridge and portmap's empty chains. On a node
 * in service that is right, since the next pod needs them; a test run or an uninstall takes them away.
 */
import { run, tryRun } from '../base/process.ts';
import { findLink, ip } from './netns.ts';

const TIMEOUT_MS = 10_000;
/** portmap's chains; the first holds one rule per pod with host ports. */
const DNAT_CHAIN = 'CNI-HOSTPORT-DNAT';
const CHAINS = [DNAT_CHAIN, 'CNI-HOSTPORT-SETMARK', 'CNI-HOSTPORT-MASQ'] as const;

/** Removes the bridges named, and portmap's chains unless a pod, of this or another runtime, still has a rule in them. */
export async function removeHostLeftovers(bridges: readonly string[], signal: AbortSignal): Promise<void> {
  for (const bridge of bridges) {
    if (await findLink(undefined, bridge, signal)) await ip(['link', 'del', 'dev', bridge], signal);
  }
  for (const program of ['iptables', 'ip6tables']) await removeChains(program, signal);
}

async function removeChains(program: string, signal: AbortSignal): Promise<void> {
  const options = { signal, timeoutMs: TIMEOUT_MS };
  const listed = await tryRun(program, ['-w', '-t', 'nat', '-S'], options);
  if (listed.exitCode !== 0) return;
  const rules = listed.stdout.split('\n');
  if (rules.some((rule) => rule.startsWith(`-A ${DNAT_CHAIN} `))) return;
  const chains = CHAINS.filter((chain) => rules.includes(`-N ${chain}`));
  const jumps = rules.filter((rule) => rule.startsWith('-A ') && chains.some((chain) => rule.endsWith(`-j ${chain}`)));
  for (const jump of jumps) await run(program, ['-w', '-t', 'nat', '-D', ...words(jump.slice(3))], options);
  for (const chain of chains) {
    await run(program, ['-w', '-t', 'nat', '-F', chain], options);
    await run(program, ['-w', '-t', 'nat', '-X', chain], options);
  }
}

/** Splits a rule as iptables prints it: words, some in double quotes. */
function words(rule: string): readonly string[] {
  return [...rule.matchAll(/"([^"]*)"|(\S+)/g)].map((match) => match[1] ?? match[2] ?? '');
}
