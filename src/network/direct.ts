/**
 * Pods with an address of the cloud's own: the cloud brings their packets to the machine, and the machine takes them to the pod.
 * Nothing is made on the node. Pure.
 */
import { isIPv4 } from 'node:net';
import { InfraletError } from '../base/errors.ts';
import type { DirectLink, PodNetworkResult } from './pod-network.ts';

/** No bound of the node's: the machine gives its pod what its own NIC carries. */
const ANY_MTU = 65_535;

/**
 * The pod sees a network of two: itself, and the other address of its pair (RFC 3021) as its gateway. Its machine answers for
 * every address but the pod's, so that this works in whatever subnet or range the cloud has taken the address from.
 */
export function directNetwork({ pod }: DirectLink): PodNetworkResult {
  if (!isIPv4(pod)) throw new InfraletError('INTERNAL', `the pod's address ${JSON.stringify(pod)} is no IPv4 address`);
  const bytes = pod.split('.').map(Number);
  const gateway = bytes.map((byte, index) => (index === 3 ? byte ^ 1 : byte)).join('.');
  return {
    netns: '',
    // As CNI's bridge makes them: the same for the same address, and nobody's in hardware.
    mac: ['0a', '58', ...bytes.map((byte) => byte.toString(16).padStart(2, '0'))].join(':'),
    mtu: ANY_MTU,
    addresses: [{ address: `${pod}/31`, gateway }],
    routes: [{ destination: '0.0.0.0/0', gateway }],
  };
}
