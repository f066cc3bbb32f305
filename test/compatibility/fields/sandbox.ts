/** Requests about pod sandboxes. */
import { done, type Fields, guest, limited, shown, unused } from '../entry.ts';

export const SANDBOX: Fields = {
  RunPodSandboxRequest: {
    config: done(),
    runtime_handler: limited('one of `runtimeHandlers` in the configuration'),
  },
  PodSandboxConfig: {
    metadata: shown('a pod and attempt that is being made or ready is not made twice: the second call joins the first'),
    hostname: guest("empty: the node's name"),
    log_directory: done('log files of the containers are written there, on the node'),
    dns_config: guest("absent: the node's own resolv.conf"),
    port_mappings: done("given to the node's CNI plugins; the machine hears nothing of them"),
    labels: shown('not told to the machine'),
    annotations: shown('not told to the machine'),
    linux: done(),
    windows: { treatment: 'refused', note: 'pods run Linux here' },
  },
  PodSandboxMetadata: {
    name: limited('no "/" and no control characters: it becomes part of paths and tags'),
    uid: limited('as the name'),
    namespace: limited('as the name'),
    attempt: shown(),
  },
  DNSConfig: {
    servers: limited('IP addresses'),
    searches: guest(),
    options: guest(),
  },
  PortMapping: {
    protocol: done('TCP, UDP and, where the CNI plugin has it, SCTP'),
    container_port: limited('1 to 65535'),
    host_port: limited("up to 65535; 0: not mapped; refused where pods have addresses of the cloud's own"),
    host_ip: limited('an IP address'),
  },
  LinuxPodSandboxConfig: {
    cgroup_parent: done('not used inside the machine, whose pod has a cgroup of its own there'),
    security_context: done(),
    sysctls: guest("safe and unsafe ones: it is the pod's own kernel"),
    overhead: done('added to the size of the machine'),
    resources: done('the size of the machine'),
  },
  LinuxSandboxSecurityContext: {
    namespace_options: done(),
    selinux_options: { treatment: 'refused', note: 'unless all of it is empty: SELinux is not in the machine' },
    run_as_user: guest("of the pod's pause process"),
    run_as_group: guest("of the pod's pause process"),
    readonly_rootfs: guest("of the pod's pause process"),
    supplemental_groups: guest("of the pod's pause process"),
    supplemental_groups_policy: limited('Merge and Strict; the pause process has no other groups'),
    privileged: guest('privileged in the machine, not on the node'),
    seccomp_profile_path: limited('deprecated; counts where `seccomp` is absent'),
    seccomp: done("of the pod's pause process; Localhost: the file is carried into the machine"),
    apparmor: limited('Unconfined: AppArmor is not in the machine'),
  },
  StopPodSandboxRequest: { pod_sandbox_id: done('succeeds on the unknown') },
  RemovePodSandboxRequest: { pod_sandbox_id: done('succeeds on the unknown') },
  PodSandboxStatusRequest: {
    pod_sandbox_id: done('or a prefix that only one pod has'),
    verbose: done('adds state, machine, timeline and last error as JSON'),
  },
  ListPodSandboxRequest: { filter: done() },
  StreamPodSandboxesRequest: { filter: done() },
  PodSandboxFilter: {
    id: done('or a prefix'),
    state: done(),
    label_selector: done(),
  },
  PodSandboxStateValue: { state: done() },
  UpdatePodSandboxResourcesRequest: {
    pod_sandbox_id: done(),
    overhead: unused('was counted into the machine when it was made'),
    resources: done('the limits of the pod inside its machine'),
  },
};
