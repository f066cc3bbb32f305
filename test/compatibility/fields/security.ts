/** Namespaces, users, capabilities and profiles, of pods and containers. */
import { done, type Fields, guest, limited, refused } from '../entry.ts';

export const SECURITY: Fields = {
  NamespaceOption: {
    network: limited("POD; NODE is the machine's own network, or refused (`network.hostNetwork`)"),
    pid: limited('POD, CONTAINER, TARGET (containers only); NODE is the machine'),
    ipc: limited('POD; NODE is the machine'),
    target_id: limited('a container of the same pod'),
    userns_options: limited('modes POD and NODE'),
  },
  UserNamespace: {
    mode: limited('POD, or NODE for none; POD not together with the PID or IPC namespace of the machine'),
    uids: limited('one range that begins with 0'),
    gids: limited('one range that begins with 0'),
  },
  Int64Value: { value: limited('as user or group: 0 to 4294967294') },
  SecurityProfile: {
    profile_type: limited('RuntimeDefault, Unconfined, Localhost'),
    localhost_ref: limited('a seccomp profile: the file on the node is carried into the machine'),
  },
  SELinuxOption: {
    user: refused('SELinux is not in the machine'),
    role: refused('SELinux is not in the machine'),
    type: refused('SELinux is not in the machine'),
    level: refused('SELinux is not in the machine'),
  },
  Capability: {
    add_capabilities: guest(),
    drop_capabilities: guest(),
    add_ambient_capabilities: done('made permitted and inheritable, too'),
  },
  LinuxContainerSecurityContext: {
    capabilities: guest(),
    privileged: guest('privileged in the machine, not on the node'),
    namespace_options: done(),
    selinux_options: refused('unless all of it is empty: SELinux is not in the machine'),
    run_as_user: guest(),
    run_as_username: limited('not together with run_as_user'),
    run_as_group: limited('with run_as_user or run_as_username only'),
    readonly_rootfs: guest(),
    supplemental_groups: guest(),
    supplemental_groups_policy: limited('Merge and Strict'),
    apparmor_profile: limited('deprecated; as `apparmor`'),
    seccomp_profile_path: limited('deprecated; counts where `seccomp` is absent'),
    no_new_privs: guest(),
    masked_paths: limited('absolute paths'),
    readonly_paths: limited('absolute paths'),
    seccomp: done('Localhost: the file is carried into the machine'),
    apparmor: limited('Unconfined: AppArmor is not in the machine'),
  },
};
