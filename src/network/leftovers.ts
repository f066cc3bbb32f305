/**
 * What CNI leaves on a node when the last pod has gone: the bridge, portmap's empty chains, iproute2's directory of names.
 * On a node in service that is right, since the next pod needs them; a test run or an uninstall takes them away.
 */
import { deleteChain, deleteRule, eachNatTable } from './iptables.ts';
import { findLink, ip, removeNetnsDir } from './netns.ts';

/** portmap's chains; the first holds one rule per pod with host ports. */
const DNAT_CHAIN = 'CNI-HOSTPORT-DNAT';
const CHAINS = [DNAT_CHAIN, 'CNI-HOSTPORT-SETMARK', 'CNI-HOSTPORT-MASQ'] as const;

/** Removes the bridges named, and portmap's chains unless a pod, of this or another runtime, still has a rule in them. */
export async function removeHostLeftovers(bridges: readonly string[], signal: AbortSignal): Promise<void> {
  for (const bridge of bridges) {
    if (await findLink(undefined, bridge, signal)) await ip(['link', 'del', 'dev', bridge], signal);
  }
  await removeNetnsDir(signal);
  await eachNatTable(async (program, rules) => {
    if (rules.some((rule) => rule.startsWith(`-A ${DNAT_CHAIN} `))) return;
    const chains = CHAINS.filter((chain) => rules.includes(`-N ${chain}`));
    const jumps = rules.filter(
      (rule) => rule.startsWith('-A ') && chains.some((chain) => rule.endsWith(`-j ${chain}`)),
    );
    for (const jump of jumps) await deleteRule(program, jump, signal);
    for (const chain of chains) await deleteChain(program, chain, signal);
  }, signal);
}
