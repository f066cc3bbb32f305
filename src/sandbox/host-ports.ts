/** Which ports of the node lead to a pod. Pure. */
import { InfraletError } from '../base/errors.ts';
import type { Provider } from '../cloud/contract.ts';
import type { PodSandboxConfig__Output } from '../gen/runtime/v1/PodSandboxConfig.ts';
import type { PodNetworkSpec } from '../network/pod-network.ts';

/** The node maps ports to pods whose packets pass it; those of a pod with an address of the cloud's own do not. */
export function requireHostPorts(
  config: PodSandboxConfig__Output,
  { directPods = false }: Pick<Provider, 'directPods'>,
): void {
  const [first] = directPods ? hostPorts(config) : [];
  if (!first) return;
  const { namespace = '', name = '' } = config.metadata ?? {};
  throw new InfraletError(
    'INVALID_ARGUMENT',
    `pod ${namespace}/${name} asks for port ${first.hostPort} of the node, but its address is the cloud's own: the node has no part in its network`,
    { hint: 'run it without hostPort and hostNetwork, or on a node whose provider has podAddress: tunnel' },
  );
}

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
