/** What the guest's containerd is told of a container: the kubelet's configuration with the node's own facts taken out. Pure. */
import type { ContainerId, Digest } from '../base/ids.ts';
import type { ContainerConfig, ContainerConfig__Output } from '../gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerSecurityContext } from '../gen/runtime/v1/LinuxContainerSecurityContext.ts';
import type { Mount } from '../gen/runtime/v1/Mount.ts';
import type { SecurityProfile } from '../gen/runtime/v1/SecurityProfile.ts';
import { GUEST_LOG_FIFO } from '../rpc/agent-protocol.ts';

import { guestHugepageLimits, type HugePageNeed } from './huge-pages.ts';

/** Of annotations that name CDI devices. */
const CDI_PREFIX = 'cdi.k8s.io/';

/** Label that says, in the guest, which of the node's containers one is. */
export const CONTAINER_LABEL = 'infralet.dev/container';

export function guestContainerConfig(
  config: ContainerConfig__Output,
  facts: {
    readonly id: ContainerId;
    readonly image: Digest;
    readonly mounts: readonly Mount[];
    readonly seccomp: SecurityProfile | null;
    /** Huge pages of all containers of the pod. */
    readonly hugePages: readonly HugePageNeed[];
    /** containerd's id of the container whose PID namespace is joined. */
    readonly targetId: string;
  },
): ContainerConfig {
  const resources = config.linux?.resources ?? null;
  return {
    ...config,
    // Names are kept apart on the node. The guest may still hold a container of a call that was given up on; the next try
    // must not meet its name.
    metadata: { name: facts.id, attempt: 0 },
    image: { image: facts.image },
    mounts: facts.mounts.map(plainMount),
    labels: { [CONTAINER_LABEL]: facts.id },
    annotations: cdiAnnotations(config.annotations),
    // A FIFO; see src/agent/logs.ts.
    logPath: config.logPath === '' ? '' : `${guestLogName(facts.id)}/${GUEST_LOG_FIFO}`,
    windows: null,
    linux: {
      securityContext: guestSecurity(config, facts),
      resources: resources && {
        ...resources,
        hugepageLimits: guestHugepageLimits(resources.hugepageLimits, facts.hugePages),
        // CPU and memory node numbers are the node's own; the machine has its own.
        cpusetCpus: '',
        cpusetMems: '',
      },
    },
  };
}

/** Without what containerd 1.7 refuses or does not know; it comes back with the specification (see spec.ts). */
function plainMount(mount: Mount): Mount {
  return { ...mount, uidMappings: [], gidMappings: [], recursiveReadOnly: false, mountOptions: [] };
}

/** The older way to ask for CDI devices. All other annotations are none of the guest's. */
function cdiAnnotations(annotations: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(annotations).filter(([key]) => key.startsWith(CDI_PREFIX)));
}

/** Name of a container's log below the agent's log root. */
export function guestLogName(id: ContainerId): string {
  return id;
}

function guestSecurity(
  config: ContainerConfig__Output,
  { seccomp, targetId }: { readonly seccomp: SecurityProfile | null; readonly targetId: string },
): LinuxContainerSecurityContext | null {
  const security = config.linux?.securityContext ?? null;
  if (!security) return null;
  const namespaces = security.namespaceOptions;
  return {
    ...security,
    seccomp,
    seccompProfilePath: '',
    // As for the sandbox: the machine's pod NIC lives in the pod's namespace, whatever the pod calls it.
    namespaceOptions: namespaces && { ...namespaces, network: 'POD', targetId },
  };
}
