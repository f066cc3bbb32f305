/**
 * The pod's NIC where its address is the cloud's own: one end of a link whose other end stays in the machine, which passes
 * packets for and from the pod's address on between its NIC and the pod, and nothing else. The pod's hardware address is never
 * seen outside: a cloud takes no frames but those of its own NIC.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import type { Routed__Output } from '../gen/infralet/agent/v1/Routed.ts';
import type { AgentOptions } from './options.ts';
import { dropPodLink, LINK, linkCommand, linkRules, nicOf, POD_DEVICE } from './pod-link.ts';

/** May be repeated: what an earlier try left is made anew. `mac` and `mtu` are checked; the MTU is as large as fits here. */
export async function makeRoutedLink(
  { local, pod }: Routed__Output,
  mac: string,
  mtu: number,
  options: Pick<AgentOptions, 'ipCommand' | 'nftCommand' | 'nicsDir' | 'procDir'>,
): Promise<void> {
  if (!isIPv4(local) || !isIPv4(pod)) {
    throw new InfraletError('INVALID_ARGUMENT', 'the addresses of machine and pod are no IPv4 addresses');
  }
  const { ipCommand, nftCommand, nicsDir } = options;
  const nic = nicOf(local);
  const fits = Math.min(mtu, Number(readFileSync(join(nicsDir, nic, 'mtu'), 'utf8')));
  // The rules are there before the device.
  await linkCommand(nftCommand, [podOnly(pod, nic)]);
  await dropPodLink(ipCommand);
  const ip = async (words: string): Promise<void> => await linkCommand(ipCommand, words.split(' '));
  await ip(`link add ${LINK} mtu ${fits} type veth peer name ${POD_DEVICE} address ${mac} mtu ${fits}`);
  await ip(`link set ${LINK} addrgenmode none up`);
  const set = (what: string, value: number): void =>
    writeFileSync(join(options.procDir, 'sys', 'net', 'ipv4', what), String(value));
  for (const device of [nic, LINK]) {
    set(`conf/${device}/forwarding`, 1);
    // Else an answer to a request by broadcast waits for up to 0.8 s.
    set(`neigh/${device}/proxy_delay`, 0);
  }
  // To the pod the machine is every other address; to its cloud, should it ask, it is the pod's, too.
  set(`conf/${LINK}/proxy_arp`, 1);
  await ip(`route replace ${pod}/32 dev ${LINK}`);
  await ip(`neigh replace proxy ${pod} dev ${nic}`);
}

/** Between pod and NIC only, from the pod's own address only; nothing for the machine itself, or for what is local to it. */
function podOnly(pod: string, nic: string): string {
  return linkRules({
    input: [`iifname ${LINK} drop`],
    forward: [
      `iifname ${LINK} ip saddr != ${pod} drop`,
      `iifname ${LINK} ip daddr 169.254.0.0/16 drop`,
      `iifname ${LINK} meta nfproto ipv6 drop`,
      `iifname ${LINK} oifname != "${nic}" drop`,
      `oifname ${LINK} iifname != "${nic}" drop`,
      // The machine is no router for anybody else.
      `iifname "${nic}" oifname != ${LINK} drop`,
    ],
  });
}
