/**
 * Optional parts of the CRI, as Status reports them and as requests are checked. One list for both: what a request asks
 * for beyond it is refused, never silently ignored.
 */
interface Features {
  /** Mount.recursive_read_only. */
  readonly recursiveReadOnlyMounts: boolean;
  /** NamespaceOption.userns_options with mode POD. */
  readonly userNamespaces: boolean;
  /** SupplementalGroupsPolicy Strict. */
  readonly supplementalGroupsPolicy: boolean;
  /** userns_options with mode POD for hostNetwork pods: theirs is the machine's network, behind the same namespace. */
  readonly userNamespacesHostNetwork: boolean;
  /** AppArmor profiles. */
  readonly appArmor: boolean;
  /** Mount.mount_options. */
  readonly mountOptions: boolean;
  /** Mount.image. */
  readonly imageVolumes: boolean;
  /** ContainerConfig.CDI_devices. */
  readonly cdiDevices: boolean;
  /** ContainerConfig.stop_signal. */
  readonly stopSignals: boolean;
}

/**
 * What the guest's kernel, crun and containerd (Debian 13: 1.7) do together; what containerd 1.7 lacks and crun has is
 * written into the specification of a container (src/container/spec.ts).
 */
export const FEATURES: Features = {
  recursiveReadOnlyMounts: true,
  userNamespaces: true,
  supplementalGroupsPolicy: true,
  userNamespacesHostNetwork: true,
  appArmor: false,
  mountOptions: true,
  imageVolumes: false,
  cdiDevices: true,
  stopSignals: true,
};
