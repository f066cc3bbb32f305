/** What the guest's containerd is told of the pod: the kubelet's configuration with the node's own facts taken out. Pure. */

import type { DNSConfig } from '../gen/runtime/v1/DNSConfig.ts';
import type { PodSandboxConfig, PodSandboxConfig__Output } from '../gen/runtime/v1/PodSandboxConfig.ts';
import type { PodNetworkResult } from '../network/pod-network.ts';

/** Directory in the guest where containerd writes container logs (the agent's ROOT_LOGS). */
const GUEST_LOG_DIRECTORY = '/scratch/logs';
/** The guest's containerd uses the cgroupfs driver; every pod of the machine lives here. */
const GUEST_CGROUP_PARENT = '/pod';
/** Hardware address of the pod NIC as every provider makes it; the pod's own is set before it is moved. */
export const POD_NIC = '52:54:00:00:00:02';

export interface NodeFacts {
  /** Host name of the node, for pods without one of their own. */
  readonly hostname: string;
  /** The node's resolver, for pods that bring no DNS configuration. */
  readonly dns: DNSConfig;
}

export function guestSandboxConfig(config: PodSandboxConfig__Output, node: NodeFacts): PodSandboxConfig {
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
