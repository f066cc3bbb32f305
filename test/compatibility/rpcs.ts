/** Every RPC: whether it is there, and what is worth saying about it. */

export interface RpcEntry {
  /** False: it answers UNIMPLEMENTED. */
  readonly there: boolean;
  readonly note: string;
}

const there = (note = ''): RpcEntry => ({ there: true, note });
const absent = (note: string): RpcEntry => ({ there: false, note });
const checkpoint = absent('containerd in the machine has none of the three, and the guest image no CRIU');

export const RPCS: Readonly<Record<string, RpcEntry>> = {
  Version: there(),
  RunPodSandbox: there('starts the machine of the pod; a second call for the same pod and attempt joins the first'),
  StopPodSandbox: there('gives the machine back; statuses and logs stay until RemovePodSandbox'),
  RemovePodSandbox: there(),
  PodSandboxStatus: there('from memory'),
  ListPodSandbox: there('from memory'),
  StreamPodSandboxes: there('ListPodSandbox in pieces'),
  CreateContainer: there('brings image and mounts into the machine'),
  StartContainer: there(),
  StopContainer: there(),
  RemoveContainer: there(),
  ListContainers: there('from memory'),
  StreamContainers: there('ListContainers in pieces'),
  ContainerStatus: there('from memory'),
  UpdateContainerResources: there('in force when it returns; journalled; more than the machine has is refused'),
  ReopenContainerLog: there(
    'the new file holds what the renamed one does not; any number of times, also after a crash',
  ),
  ExecSync: there('a time limit kills the command'),
  Exec: there('SPDY and WebSocket up to v5.channel.k8s.io'),
  Attach: there('SPDY and WebSocket up to v5.channel.k8s.io'),
  PortForward: there('SPDY, and WebSocket with channels or with SPDY inside'),
  ContainerStats: there('from memory; asks the machine when the newest sample is missing or old'),
  ListContainerStats: there('from memory; what does not run has attributes and its layer only'),
  StreamContainerStats: there('ListContainerStats in pieces'),
  PodSandboxStats: there('from memory, as ContainerStats; only of pods that are ready'),
  ListPodSandboxStats: there('from memory; only of pods that are ready'),
  StreamPodSandboxStats: there('ListPodSandboxStats in pieces'),
  UpdateRuntimeConfig: there('the pod CIDR is checked and logged; addresses come from the CNI configuration'),
  Status: there(),
  CheckpointContainer: checkpoint,
  CheckpointPod: checkpoint,
  RestorePod: checkpoint,
  GetContainerEvents: there('every change of containers and sandboxes; a slow reader keeps the newest of each'),
  ListMetricDescriptors: there("cadvisor's names"),
  ListPodSandboxMetrics: there('from memory'),
  StreamPodSandboxMetrics: there('ListPodSandboxMetrics in pieces'),
  RuntimeConfig: there(),
  UpdatePodSandboxResources: there("the pod's cgroup in the machine; more than the machine has is refused"),
  ListImages: there('from memory'),
  StreamImages: there('ListImages in pieces'),
  ImageStatus: there('from memory; verbose, with the configuration of the image'),
  PullImage: there('always asks the registry; fetches what the store lacks'),
  RemoveImage: there(),
  ImageFsInfo: there(),
};
