/** Namespaces, users, capabilities and profiles, of pods and containers. */
import { done, type Fields, guest, limited, refused, unused } from '../entry.ts';

export const SECURITY: Fields = {
  NamespaceOption: {
    network: limited("POD; NODE is the machine's own network, or refused (`network.hostNetwork`)"),
    pid: limited('POD, CONTAINER, TARGET (containers only); NODE is the machine'),
    ipc: limited('POD; NODE is the machine'),
    target_id: limited('a container of the same pod'),
    userns_options: limited('mode NODE only'),
  },
  UserNamespace: {
    mode: limited('NODE only: containerd in the machine has no user namespaces; the pod has its own kernel'),
    uids: refused('need the mode POD'),
    gids: refused('need the mode POD'),
  },
  Int64Value: { value: limited('as user or group: 0 to 4294967294') },
  SecurityProfile: {
    profile_type: limited('RuntimeDefault, Unconfined, Localhost'),
    localhost_ref: done('a seccomp profile: the file on the node is carried into the machine'),
  },
  SELinuxOption: {
    user: guest('the guest kernel has no SELinux'),
    role: guest('the guest kernel has no SELinux'),
    type: guest('the guest kernel has no SELinux'),
    level: guest('the guest kernel has no SELinux'),
  },
  Capability: {
    add_capabilities: guest(),
    drop_capabilities: guest(),
    add_ambient_capabilities: guest(),
  },
  LinuxContainerSecurityContext: {
    capabilities: guest(),
    privileged: guest('privileged in the machine, not on the node'),
    namespace_options: done(),
    selinux_options: guest('the guest kernel has no SELinux'),
    run_as_user: guest(),
    run_as_username: limited('not together with run_as_user'),
    run_as_group: limited('with run_as_user or run_as_username only'),
    readonly_rootfs: guest(),
    supplemental_groups: guest(),
    supplemental_groups_policy: refused('Strict: containerd in the machine lacks it'),
    apparmor_profile: unused('deprecated since Kubernetes 1.30; `apparmor` counts'),
    seccomp_profile_path: unused('deprecated since Kubernetes 1.19; `seccomp` counts'),
    no_new_privs: guest(),
    masked_paths: limited('absolute paths'),
    readonly_paths: limited('absolute paths'),
    seccomp: done('Localhost: the file is carried into the machine'),
    apparmor: guest('the guest kernel has no AppArmor'),
  },
};
