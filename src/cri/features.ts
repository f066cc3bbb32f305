/**
 * Optional parts of the CRI, as Status reports them and as requests are checked. One list for both: what a request asks
 * for beyond it is refused, never silently ignored.
 */
export interface Features {
  /** Mount.recursive_read_only. */
  readonly recursiveReadOnlyMounts: boolean;
  /** NamespaceOption.userns_options with mode POD. */
  readonly userNamespaces: boolean;
  /** SupplementalGroupsPolicy Strict. */
  readonly supplementalGroupsPolicy: boolean;
  /** Mount.mount_options. */
  readonly mountOptions: boolean;
  /** Mount.image. */
  readonly imageVolumes: boolean;
  /** ContainerConfig.CDI_devices. */
  readonly cdiDevices: boolean;
  /** ContainerConfig.stop_signal. */
  readonly stopSignals: boolean;
}

/** The guest's containerd (Debian 13: 1.7) has none of them. */
export const FEATURES: Features = {
  recursiveReadOnlyMounts: false,
  userNamespaces: false,
  supplementalGroupsPolicy: false,
  mountOptions: false,
  imageVolumes: false,
  cdiDevices: false,
  stopSignals: false,
};
