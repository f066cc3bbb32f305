/** What the guest's containerd is told of the pod: the kubelet's configuration with the node's own facts taken out. Pure. */

import type { DNSConfig } from '../gen/runtime/v1/DNSConfig.ts';
import type { PodSandboxConfig, PodSandboxConfig__Output } from '../gen/runtime/v1/PodSandboxConfig.ts';
import type { SecurityProfile } from '../gen/runtime/v1/SecurityProfile.ts';
import type { GuestPod, GuestPodResources } from '../guest/channel.ts';
import type { PodNetworkResult } from '../network/pod-network.ts';
import { GUEST_CGROUP_PARENT, GUEST_LOG_DIRECTORY, NOBODYS_NETWORK } from '../rpc/agent-protocol.ts';
import { seccompProfile } from '../volume/seccomp.ts';

export interface NodeFacts {
  /** Host name of the node, for pods without one of their own. */
  readonly hostname: string;
  /** The node's resolver, for pods that bring no DNS configuration. */
  readonly dns: DNSConfig;
}

/** `seccomp`: the profile of the sandbox's own process, with its place in the machine. */
export function guestSandboxConfig(
  config: PodSandboxConfig__Output,
  node: NodeFacts,
  seccomp: SecurityProfile | null = null,
): PodSandboxConfig {
  const security = config.linux?.securityContext ?? null;
  return {
    metadata: config.metadata,
    hostname: config.hostname === '' ? node.hostname : config.hostname,
    logDirectory: GUEST_LOG_DIRECTORY,
    dnsConfig: config.dnsConfig ?? node.dns,
    // hostPorts are the node's affair (CNI portmap); labels and annotations are none of the guest's.
    portMappings: [],
    linux: {
      cgroupParent: GUEST_CGROUP_PARENT,
      sysctls: config.linux?.sysctls ?? {},
      securityContext: security && {
        ...security,
        seccomp,
        seccompProfilePath: '',
        namespaceOptions: security.namespaceOptions && {
          ...security.namespaceOptions,
          // The machine is the pod's: its one pod NIC always lives in the pod's namespace, so that the management NIC and
          // a cloud's metadata service stay out of reach, for a hostNetwork pod too.
          network: 'POD',
        },
      },
    },
  };
}

/**
 * Whether the sandbox that a template was frozen with can become this pod's. Hostname, DNS and network are given to it
 * afterwards; what containerd fixes when it makes a sandbox must be as it was made (see src/agent/pod-sandbox.ts): no
 * sysctls, its own IPC, PID and user namespaces, no privileges, no seccomp profile of the pod's own (it runs under the
 * default one). User and groups of a sandbox concern its pause process only; containers bring their own.
 */
export function fitsTemplateSandbox(config: PodSandboxConfig__Output): boolean {
  const security = config.linux?.securityContext ?? null;
  const namespaces = security?.namespaceOptions ?? null;
  return (
    Object.keys(config.linux?.sysctls ?? {}).length === 0 &&
    security?.privileged !== true &&
    seccompProfile(security)?.profileType !== 'Localhost' &&
    (namespaces?.ipc ?? 'POD') === 'POD' &&
    (namespaces?.pid ?? 'POD') !== 'NODE' &&
    (namespaces?.usernsOptions?.mode ?? 'NODE') === 'NODE'
  );
}

/** What such a sandbox is given. */
export function guestPod(
  config: PodSandboxConfig__Output,
  node: NodeFacts,
  network: PodNetworkResult,
  limits: GuestPodResources,
): GuestPod {
  const gateways = network.addresses.map(({ gateway }) => gateway).filter((gateway) => gateway !== undefined);
  const family = (text: string): boolean => text.includes(':');
  return {
    hostname: config.hostname === '' ? node.hostname : config.hostname,
    resolvConf: resolvConf(config.dnsConfig ?? node.dns),
    mac: network.mac,
    mtu: network.mtu,
    addresses: network.addresses.map(({ address }) => ({ address })),
    routes: network.routes.map(({ destination, gateway }) => ({
      destination,
      gateway: gateway ?? gateways.find((each) => family(each) === family(destination)) ?? '',
    })),
    limits,
  };
}

/** What a machine that waits rehearses with. */
export const NOBODYS_POD: GuestPod = {
  ...NOBODYS_NETWORK,
  limits: { memoryBytes: -1, cpuQuota: -1, cpuPeriod: 0, cpuShares: 0 },
};

/** The file as containerd writes it. */
function resolvConf({ servers, searches, options }: DNSConfig): string {
  const lines = [
    ...((searches?.length ?? 0) > 0 ? [`search ${searches?.join(' ')}`] : []),
    ...(servers ?? []).map((server) => `nameserver ${server}`),
    ...((options?.length ?? 0) > 0 ? [`options ${options?.join(' ')}`] : []),
  ];
  return lines.map((line) => `${line}\n`).join('');
}

/** CNI configuration for the guest: takes the pod NIC into the pod's namespace with the node's CNI result. */
export function guestCniConfig(network: PodNetworkResult): string {
  return JSON.stringify({
    cniVersion: '1.0.0',
    name: 'pod',
    plugins: [
      {
        type: 'host-device',
        hwaddr: network.mac,
        ipam: {
          type: 'static',
          addresses: network.addresses.map(({ address, gateway }) => ({ address, ...(gateway ? { gateway } : {}) })),
          routes: network.routes.map(({ destination, gateway }) => ({
            dst: destination,
            ...(gateway ? { gw: gateway } : {}),
          })),
        },
      },
    ],
  });
}

/** resolv.conf(5) as a CRI DNS configuration; unknown lines are left out. */
export function parseResolvConf(text: string): DNSConfig {
  const servers: string[] = [];
  let searches: string[] = [];
  const options: string[] = [];
  for (const line of text.split('\n')) {
    const [key, ...values] = line
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/);
    if (key === 'nameserver') servers.push(...values.slice(0, 1));
    else if (key === 'search' || key === 'domain') searches = values;
    else if (key === 'options') options.push(...values);
  }
  return { servers, searches, options };
}
