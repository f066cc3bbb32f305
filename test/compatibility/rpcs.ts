/** Every RPC: whether it is there, and what is worth saying about it. */

export interface RpcEntry {
  /** False: it answers UNIMPLEMENTED. */
  readonly there: boolean;
  readonly note: string;
}

const there = (note = ''): RpcEntry => ({ there: true, note });
const absent = (note: string): RpcEntry => ({ there: false, note });
const soon = absent('not there yet');
const checkpoint = absent('containerd in the machine has none of the three, and the guest image no CRIU');

export const RPCS: Readonly<Record<string, RpcEntry>> = {
  Version: there(),
  RunPodSandbox: there('starts the machine of the pod; a second call for the same pod and attempt joins the first'),
  StopPodSandbox: there('gives the machine back; statuses and logs stay until RemovePodSandbox'),
  RemovePodSandbox: there(),
  PodSandboxStatus: there('from memory'),
  ListPodSandbox: there('from memory'),
  StreamPodSandboxes: soon,
  CreateContainer: there('brings image and mounts into the machine'),
  StartContainer: there(),
  StopContainer: there(),
  RemoveContainer: there(),
  ListContainers: there('from memory'),
  StreamContainers: soon,
  ContainerStatus: there('from memory'),
  UpdateContainerResources: soon,
  ReopenContainerLog: soon,
  ExecSync: there(),
  Exec: there('SPDY and WebSocket'),
  Attach: there('SPDY and WebSocket'),
  PortForward: there('SPDY and WebSocket'),
  ContainerStats: soon,
  ListContainerStats: soon,
  StreamContainerStats: soon,
  PodSandboxStats: soon,
  ListPodSandboxStats: soon,
  StreamPodSandboxStats: soon,
  UpdateRuntimeConfig: soon,
  Status: there(),
  CheckpointContainer: checkpoint,
  CheckpointPod: checkpoint,
  RestorePod: checkpoint,
  GetContainerEvents: soon,
  ListMetricDescriptors: soon,
  ListPodSandboxMetrics: soon,
  StreamPodSandboxMetrics: soon,
  RuntimeConfig: there(),
  UpdatePodSandboxResources: soon,
  ListImages: there('from memory'),
  StreamImages: soon,
  ImageStatus: there('from memory'),
  PullImage: there('always asks the registry; fetches what the store lacks'),
  RemoveImage: there(),
  ImageFsInfo: there(),
};
