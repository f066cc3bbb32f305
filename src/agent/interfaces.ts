/** Counters of the network interfaces that a process sees: proc(5)'s net/dev. */
import type { InterfaceSample } from '../gen/infralet/agent/v1/InterfaceSample.ts';
import { readSmall } from './cgroup.ts';
import { LIMITS } from './options.ts';

/** Without the loopback, as the CRI counts. */
export function readInterfaces(netDev: string): readonly InterfaceSample[] {
  return readSmall(netDev)
    .split('\n')
    .flatMap((line) => parse(line) ?? [])
    .slice(0, LIMITS.sampledInterfaces);
}

/** "  eth0: bytes packets errs drop fifo frame compressed multicast bytes packets errs drop …"; headings have no colon. */
function parse(line: string): InterfaceSample | undefined {
  const colon = line.lastIndexOf(':');
  const name = line.slice(0, colon).trim();
  const values = line
    .slice(colon + 1)
    .trim()
    .split(/\s+/)
    .map(Number);
  if (colon < 1 || name === 'lo' || values.length < 12 || !values.every(Number.isSafeInteger)) return undefined;
  const [rxBytes = 0, rxPackets = 0, rxErrors = 0, rxDropped = 0] = values;
  const [txBytes = 0, txPackets = 0, txErrors = 0, txDropped = 0] = values.slice(8);
  return { name, rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped };
}
