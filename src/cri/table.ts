/** Every RPC of the CRI and what answers it. A method that the proto has and the table lacks does not compile. */
import type {
  CriMethod,
  CriRequestFull,
  CriResponse,
  CriStreamMethod,
  ImageMethods,
  RuntimeMethods,
} from '../rpc/cri.ts';
import type { Handler, StreamHandler } from './deps.ts';
import { imageFsInfo } from './image/image-fs-info.ts';
import { imageStatus } from './image/image-status.ts';
import { listImages, streamImages } from './image/list-images.ts';
import { pullImage } from './image/pull-image.ts';
import { removeImage } from './image/remove-image.ts';
import { attach } from './runtime/attach.ts';
import { containerStats, listContainerStats, streamContainerStats } from './runtime/container-stats.ts';
import { containerStatus } from './runtime/container-status.ts';
import { createContainer } from './runtime/create-container.ts';
import { exec } from './runtime/exec.ts';
import { execSync } from './runtime/exec-sync.ts';
import { getContainerEvents } from './runtime/get-container-events.ts';
import { listContainers, streamContainers } from './runtime/list-containers.ts';
import { listPodSandbox, streamPodSandboxes } from './runtime/list-pod-sandbox.ts';
import { listMetricDescriptors, listPodSandboxMetrics, streamPodSandboxMetrics } from './runtime/metrics.ts';
import { listPodSandboxStats, podSandboxStats, streamPodSandboxStats } from './runtime/pod-sandbox-stats.ts';
import { podSandboxStatus } from './runtime/pod-sandbox-status.ts';
import { portForward } from './runtime/port-forward.ts';
import { removeContainer } from './runtime/remove-container.ts';
import { removePodSandbox } from './runtime/remove-pod-sandbox.ts';
import { reopenContainerLog } from './runtime/reopen-container-log.ts';
import { runPodSandbox } from './runtime/run-pod-sandbox.ts';
import { runtimeConfig } from './runtime/runtime-config.ts';
import { startContainer } from './runtime/start-container.ts';
import { status } from './runtime/status.ts';
import { stopContainer } from './runtime/stop-container.ts';
import { stopPodSandbox } from './runtime/stop-pod-sandbox.ts';
import { updateContainerResources } from './runtime/update-container-resources.ts';
import { updatePodSandboxResources } from './runtime/update-pod-sandbox-resources.ts';
import { updateRuntimeConfig } from './runtime/update-runtime-config.ts';
import { version } from './runtime/version.ts';

/** An RPC that this runtime does not have; clients fall back on UNIMPLEMENTED, and remember it. */
const ABSENT = { kind: 'absent', why: '' } as const;
const NO_CHECKPOINTS = {
  kind: 'absent',
  why: "containerd in the pod's machine cannot do it, and a machine holds no CRIU",
} as const;

/** An RPC answered with one message. */
const one = <Request, Response>(handle: Handler<Request, Response>) => ({ kind: 'unary', handle }) as const;

/** An RPC answered with a stream. */
const many = <Request, Response>(handle: StreamHandler<Request, Response>) => ({ kind: 'stream', handle }) as const;

type Entry<M extends CriMethod> =
  | typeof ABSENT
  | typeof NO_CHECKPOINTS
  | (M extends CriStreamMethod
      ? { readonly kind: 'stream'; readonly handle: StreamHandler<CriRequestFull<M>, CriResponse<M>> }
      : { readonly kind: 'unary'; readonly handle: Handler<CriRequestFull<M>, CriResponse<M>> });

export const RUNTIME_TABLE = {
  Version: one(version),
  RunPodSandbox: one(runPodSandbox),
  StopPodSandbox: one(stopPodSandbox),
  RemovePodSandbox: one(removePodSandbox),
  PodSandboxStatus: one(podSandboxStatus),
  ListPodSandbox: one(listPodSandbox),
  CreateContainer: one(createContainer),
  StartContainer: one(startContainer),
  StopContainer: one(stopContainer),
  RemoveContainer: one(removeContainer),
  ListContainers: one(listContainers),
  ContainerStatus: one(containerStatus),
  ExecSync: one(execSync),
  Exec: one(exec),
  Attach: one(attach),
  PortForward: one(portForward),
  Status: one(status),
  RuntimeConfig: one(runtimeConfig),
  StreamPodSandboxes: many(streamPodSandboxes),
  StreamContainers: many(streamContainers),
  UpdateContainerResources: one(updateContainerResources),
  ReopenContainerLog: one(reopenContainerLog),
  ContainerStats: one(containerStats),
  ListContainerStats: one(listContainerStats),
  StreamContainerStats: many(streamContainerStats),
  PodSandboxStats: one(podSandboxStats),
  ListPodSandboxStats: one(listPodSandboxStats),
  StreamPodSandboxStats: many(streamPodSandboxStats),
  UpdateRuntimeConfig: one(updateRuntimeConfig),
  CheckpointContainer: NO_CHECKPOINTS,
  CheckpointPod: NO_CHECKPOINTS,
  RestorePod: NO_CHECKPOINTS,
  GetContainerEvents: many(getContainerEvents),
  ListMetricDescriptors: one(listMetricDescriptors),
  ListPodSandboxMetrics: one(listPodSandboxMetrics),
  StreamPodSandboxMetrics: many(streamPodSandboxMetrics),
  UpdatePodSandboxResources: one(updatePodSandboxResources),
} as const satisfies { readonly [M in keyof RuntimeMethods]: Entry<M> };

export const IMAGE_TABLE = {
  ListImages: one(listImages),
  ImageStatus: one(imageStatus),
  PullImage: one(pullImage),
  RemoveImage: one(removeImage),
  ImageFsInfo: one(imageFsInfo),
  StreamImages: many(streamImages),
} as const satisfies { readonly [M in keyof ImageMethods]: Entry<M> };
