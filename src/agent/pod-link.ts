/**
 * The pod's NIC in a machine that is not on its node's host: the machine's end of a tunnel to the node. It is made in the
 * machine's own network, through which its packets go on travelling when containerd has moved it into the pod's. The pod
 * sees an ordinary interface, and nothing of the machine's own.
 */
import { readFileSync } from 'node:fs';
import { isIP, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { Vxlan__Output } from '../gen/infralet/agent/v1/Vxlan.ts';
import { runCommand } from './commands.ts';
import type { AgentOptions } from './options.ts';

/** The machine's end of what leads to the pod. */
export const LINK = 'pod-link';
/** Until containerd moves and renames it. */
export const POD_DEVICE = 'pod0';
const TABLE = 'inet infralet-pod-link';
/** Outer Ethernet, UDP and VXLAN headers, and IP. */
const OVERHEAD = { 4: 50, 6: 70 } as const;
const MAX_VNI = 2 ** 24 - 1;

/** May be repeated: what an earlier try left is made anew. `mac` and `mtu` are checked; the MTU is as large as fits here. */
export async function makePodLink(
  { vni, local, remote, port }: Vxlan__Output,
  mac: string,
  mtu: number,
  { ipCommand, nftCommand, nicsDir }: Pick<AgentOptions, 'ipCommand' | 'nftCommand' | 'nicsDir'>,
): Promise<void> {
  if (isIP(local) === 0 || isIP(remote) !== isIP(local)) throw wrong('the ends of the pod link are no addresses');
  if (vni < 1 || vni > MAX_VNI) throw wrong(`${vni} is no VXLAN network identifier`);
  if (port < 1 || port > 65_535) throw wrong(`${port} is no UDP port`);
  const version = isIPv6(local) ? 6 : 4;
  const uplink = Number(readFileSync(join(nicsDir, nicOf(local), 'mtu'), 'utf8'));
  const fits = Math.min(mtu, uplink - OVERHEAD[version]);
  // A VXLAN device takes packets from whoever knows its number; this one has one peer. The rule is there before the device.
  await linkCommand(nftCommand, [peerOnly(port, remote, version)]);
  await dropPodLink(ipCommand);
  const kind = `type vxlan id ${vni} local ${local} remote ${remote} dstport ${port} ttl 64 nolearning`;
  // The pod's address is not the tunnel's own: a tunnel drops what has its address for a source, as a packet has that the
  // node sends back to the pod it came from (bridges do not change the source when they redirect).
  for (const words of [
    `link add ${LINK} mtu ${fits} ${kind}`,
    `link set ${LINK} arp off addrgenmode none up`,
    `link add ${POD_DEVICE} link ${LINK} address ${mac} mtu ${fits} type macvlan mode private`,
  ]) {
    await linkCommand(ipCommand, words.split(' '));
  }
}

/** Left by an earlier try; the pod's device goes with it, wherever it is. */
export async function dropPodLink(ipCommand: string): Promise<void> {
  await runCommand(ipCommand, ['link', 'del', 'dev', LINK]).catch(() => undefined);
}

/** The NIC with this address. */
export function nicOf(local: string): string {
  const nic = Object.entries(networkInterfaces()).find(([, all]) => all?.some(({ address }) => address === local))?.[0];
  if (nic !== undefined) return nic;
  throw new InfraletError('FAILED_PRECONDITION', `this machine does not have the address ${local}`, {
    hint: 'the pod link needs the address under which the provider lists the machine; none may be translated on the way',
  });
}

function peerOnly(port: number, remote: string, version: 4 | 6): string {
  const [own, other] = version === 6 ? ['ip6', 'ipv4'] : ['ip', 'ipv6'];
  return linkRules({
    input: [
      `udp dport ${port} ${own} saddr != ${remote} drop`,
      `udp dport ${port} meta nfproto ${other} drop`,
      // What the tunnel brings is for the pod alone.
      `iifname ${LINK} drop`,
    ],
  });
}

/** Takes the place of what was there, at once. Before all else that looks at packets. */
export function linkRules(chains: Readonly<Partial<Record<'input' | 'forward', readonly string[]>>>): string {
  const all = Object.entries(chains).flatMap(([hook, rules]) => [
    `chain ${hook} {`,
    `type filter hook ${hook} priority -300;`,
    ...rules,
    '}',
  ]);
  return [`table ${TABLE}`, `delete table ${TABLE}`, `table ${TABLE} {`, ...all, '}'].join('\n');
}

/** A program that makes a part of the link. */
export async function linkCommand(file: string, args: readonly string[]): Promise<void> {
  try {
    await runCommand(file, args);
  } catch (error) {
    throw new InfraletError('INTERNAL', `the pod link cannot be made: ${errorMessage(error)}`, {
      cause: error,
      hint: 'an older guest image has no programs for it: build and publish it anew',
    });
  }
}

function wrong(why: string): InfraletError {
  return new InfraletError('INVALID_ARGUMENT', why);
}
