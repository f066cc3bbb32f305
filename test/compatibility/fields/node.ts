/** The node as a whole: version, conditions, features, configuration. */
import { done, empty, type Fields, filled, unused } from '../entry.ts';

export const NODE: Fields = {
  VersionRequest: { version: unused("the kubelet's own; any is answered") },
  VersionResponse: {
    version: filled('always `0.1.0`, which is what kubelets expect'),
    runtime_name: filled('`infralet`'),
    runtime_version: filled(),
    runtime_api_version: filled('`v1`'),
  },
  StatusRequest: { verbose: done() },
  StatusResponse: {
    status: filled(),
    info: filled('with verbose'),
    runtime_handlers: filled(),
    features: filled(),
  },
  RuntimeStatus: { conditions: filled('RuntimeReady: guest image and provider; NetworkReady: CNI') },
  RuntimeCondition: { type: filled(), status: filled(), reason: filled('when false'), message: filled('when false') },
  RuntimeHandler: { name: filled(), features: filled() },
  RuntimeHandlerFeatures: {
    recursive_read_only_mounts: filled(),
    user_namespaces: filled(),
  },
  RuntimeFeatures: {
    supplemental_groups_policy: filled(),
    user_namespaces_host_network: filled("a hostNetwork pod's namespace is its own all the same"),
    mount_options: filled(),
  },
  UpdateRuntimeConfigRequest: { runtime_config: done() },
  RuntimeConfig: { network_config: done() },
  NetworkConfig: { pod_cidr: unused("the node's CNI configuration says which addresses pods get") },
  RuntimeConfigResponse: { linux: filled() },
  LinuxRuntimeConfiguration: { cgroup_driver: filled('`server.cgroupDriver`') },
  CheckpointContainerRequest: { container_id: unused(), location: unused(), timeout: unused() },
  CheckpointPodRequest: { pod_sandbox_id: unused(), output_path: unused(), container_ids: unused(), options: unused() },
  RestorePodRequest: {
    checkpoint_path: unused(),
    config: unused(),
    runtime_handler: unused(),
    options: unused(),
    container_configs: unused(),
  },
  RestorePodResponse: { pod_sandbox_id: empty(), restored_containers: empty() },
  RestoredContainer: { name: empty(), container_id: empty() },
};
