/** Which ports of the node lead to a pod. Pure. */
import type { PodSandboxConfig__Output } from '../gen/runtime/v1/PodSandboxConfig.ts';
import type { PodNetworkSpec } from '../network/pod-network.ts';

/**
 * What CNI's portmap gets. A hostNetwork pod expects its ports on the node itself; its network is the machine's, so each port
 * that it declares is mapped to the same port of the node.
 */
export function hostPorts(config: PodSandboxConfig__Output): PodNetworkSpec['portMappings'] {
  const hostNetwork = config.linux?.securityContext?.namespaceOptions?.network === 'NODE';
  return config.portMappings
    .map((mapping) =>
      mapping.hostPort === 0 && hostNetwork ? { ...mapping, hostPort: mapping.containerPort } : mapping,
    )
    .filter(({ hostPort }) => hostPort > 0)
    .map(({ hostPort, containerPort, protocol, hostIp }) => ({
      hostPort,
      containerPort,
      protocol: protocol === 'UDP' ? 'udp' : protocol === 'SCTP' ? 'sctp' : 'tcp',
      hostIp,
    }));
}
