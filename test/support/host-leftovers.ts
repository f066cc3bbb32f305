/**
 * What the last pod leaves on a node: CNI's bridge, portmap's empty chains, iproute2's directory of names, the machines' parent
 * cgroups. On a node in service that is right, since the next pod needs them; a test run takes them away.
 */
import { readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno } from '../../src/base/errors.ts';
import { tryRun } from '../../src/base/process.ts';
import { deleteChain, deleteRule, eachNatTable } from '../../src/network/iptables.ts';
import { findLink, ip } from '../../src/network/netns.ts';

/** portmap's chains; the first holds one rule per pod with host ports. */
const DNAT_CHAIN = 'CNI-HOSTPORT-DNAT';
const CHAINS = [DNAT_CHAIN, 'CNI-HOSTPORT-SETMARK', 'CNI-HOSTPORT-MASQ'] as const;
const NETNS_DIR = '/run/netns';
const CGROUPS = '/sys/fs/cgroup';

/** A test's own; other tests may go on meanwhile. */
export async function removeBridge(bridge: string, signal: AbortSignal): Promise<void> {
  if (await findLink(undefined, bridge, signal)) await ip(['link', 'del', 'dev', bridge], signal);
}

/** What all tests share; while it runs no other test may, since a plugin would find its chain gone between two of its steps. */
export async function removeSharedLeftovers(signal: AbortSignal): Promise<void> {
  await removeNetnsDir(signal);
  await removePortmapChains(signal);
  for (const controller of ['', ...(await readdir(CGROUPS))]) {
    // That of a daemon in service is not empty and stays.
    await rmdir(join(CGROUPS, controller, 'infralet')).catch(() => undefined);
  }
}

/** A mount of its own; it stays as long as a name is in it. */
async function removeNetnsDir(signal: AbortSignal): Promise<void> {
  try {
    if ((await readdir(NETNS_DIR)).length > 0) return;
    await tryRun('umount', [NETNS_DIR], { signal, timeoutMs: 10_000 });
    await rmdir(NETNS_DIR);
  } catch (error) {
    // Another program has just made a namespace, or never any was made.
    if (!hasErrno(error, 'ENOENT', 'ENOTEMPTY', 'EBUSY')) throw error;
  }
}

/** Unless a pod, of this or another runtime, still has a rule in them. */
async function removePortmapChains(signal: AbortSignal): Promise<void> {
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
