/** `Configure`: clock, randomness and host name, which a clone inherits from its template and must not keep. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import type { ConfigureRequest__Output } from '../gen/infralet/agent/v1/ConfigureRequest.ts';
import type { PodNic__Output } from '../gen/infralet/agent/v1/PodNic.ts';
import { runCommand } from './commands.ts';
import { reserveHugePages } from './huge-pages.ts';
import type { AgentOptions } from './options.ts';
import { makePodLink } from './pod-link.ts';
import { limitPod } from './pod-resources.ts';
import { refresh } from './refresh.ts';
import { makeRoutedLink } from './routed-link.ts';

/** RFC 1123 name, as the kernel takes it. */
export const HOSTNAME = /^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$/i;
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;
const MAX_ENTROPY = 4096;

export async function configure(request: ConfigureRequest__Output, options: AgentOptions): Promise<void> {
  if (request.entropy.length > MAX_ENTROPY) throw new InfraletError('INVALID_ARGUMENT', 'too much entropy at once');
  if (request.hostname !== '' && !HOSTNAME.test(request.hostname)) {
    throw new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(request.hostname)} is not a host name`);
  }
  const clockMs = Number(BigInt(request.clockNanos) / 1_000_000n);
  await refresh({ clockMs, entropy: request.entropy }, options);
  if (request.hostname !== '') writeFileSync(options.hostnameFile, request.hostname);
  reserveHugePages(request.hugePages, options.hugePagesDir);
  if (request.podResources) limitPod(request.podResources, options);
  if (request.podNic) await preparePodNic(request.podNic, options);
}

async function preparePodNic(
  { foundBy, mac, mtu, vxlan, routed }: PodNic__Output,
  options: AgentOptions,
): Promise<void> {
  checkNic(mac, mtu);
  if (vxlan) return await makePodLink(vxlan, mac, mtu, options);
  if (routed) return await makeRoutedLink(routed, mac, mtu, options);
  if (!MAC.test(foundBy)) throw notMac(foundBy);
  const { nicsDir } = options;
  const address = (nic: string): string => readFileSync(join(nicsDir, nic, 'address'), 'utf8').trim();
  const nic = readdirSync(nicsDir).find((name) => address(name) === foundBy.toLowerCase());
  if (nic === undefined) return;
  await runCommand('ip', ['link', 'set', 'dev', nic, 'address', mac, 'mtu', String(mtu)]);
}

export function checkNic(mac: string, mtu: number): void {
  if (!MAC.test(mac)) throw notMac(mac);
  if (mtu < 68 || mtu > 65_535) throw new InfraletError('INVALID_ARGUMENT', `${mtu} is no MTU`);
}

function notMac(text: string): InfraletError {
  return new InfraletError(
    'INVALID_ARGUMENT',
    `${JSON.stringify(text.slice(0, 80))} is no hardware address of a pod NIC`,
  );
}
