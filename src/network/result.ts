/** CNI results: parsed for what we need, kept whole because CHECK and DEL want them back as they were. */
import { isIP } from 'node:net';
import { z } from 'zod';
import { InfraletError } from '../base/errors.ts';
import type { PodNetworkResult } from './pod-network.ts';

const ip = z.string().refine((text) => isIP(text) !== 0, 'must be an IP address');
const cidr = z.string().refine((text) => {
  const [address = '', length = '', ...rest] = text.split('/');
  const version = isIP(address);
  const bits = Number(length);
  return rest.length === 0 && version !== 0 && /^\d+$/.test(length) && bits <= (version === 4 ? 32 : 128);
}, 'must be an address with a prefix length');

const resultSchema = z.looseObject({
  interfaces: z
    .array(z.looseObject({ name: z.string(), mac: z.string().optional(), sandbox: z.string().optional() }))
    .default([]),
  ips: z
    .array(z.looseObject({ address: cidr, gateway: ip.optional(), interface: z.int().min(0).optional() }))
    .default([]),
  routes: z.array(z.looseObject({ dst: cidr, gw: ip.optional() })).default([]),
});

export type CniResult = Readonly<z.output<typeof resultSchema>>;

/** Result of an ADD; an empty answer is the protocol's way of passing nothing on. */
export function parseResult(plugin: string, text: string): CniResult {
  try {
    return resultSchema.parse(JSON.parse(text));
  } catch (error) {
    const problem = error instanceof z.ZodError ? z.prettifyError(error) : 'it is not JSON';
    throw new InfraletError('INTERNAL', `the CNI plugin ${plugin} returned a result that cannot be read: ${problem}`, {
      cause: error,
    });
  }
}

export const cniResultSchema = resultSchema;

/** What the machine's NIC must look like. `link` is the namespace's interface as the kernel shows it. */
export function podNetworkResult(
  result: CniResult,
  netns: string,
  ifName: string,
  link: { readonly mac: string; readonly mtu: number },
): PodNetworkResult {
  const inside = result.interfaces.findIndex((entry) => entry.name === ifName && (entry.sandbox ?? '') !== '');
  const ours = result.ips.filter((entry) => entry.interface === undefined || entry.interface === inside);
  if (ours.length === 0) {
    throw new InfraletError('INTERNAL', `the CNI network gave no address to ${ifName}`, {
      hint: 'the conflist needs an IPAM plugin',
    });
  }
  const gateways = ours.flatMap((entry) => entry.gateway ?? []);
  return {
    netns,
    mac: link.mac,
    mtu: link.mtu,
    addresses: ours.map(({ address, gateway }) => ({ address, gateway })),
    // A route without a gateway goes through the gateway of its own family, as the reference plugins do it.
    routes: result.routes.map(({ dst, gw }) => ({
      destination: dst,
      gateway: gw ?? gateways.find((gateway) => isIP(gateway) === isIP(dst.split('/')[0] ?? '')),
    })),
  };
}
