/** Every RPC of the CRI and what answers it. A method that the proto has and the table lacks does not compile. */
import type {
  CriMethod,
  CriRequestFull,
  CriResponse,
  CriStreamMethod,
  ImageMethods,
  RuntimeMethods,
} from '../rpc/cri.ts';
import type { Handler } from './deps.ts';
import { imageFsInfo } from './image/image-fs-info.ts';
import { imageStatus } from './image/image-status.ts';
import { listImages } from './image/list-images.ts';
import { pullImage } from './image/pull-image.ts';
import { removeImage } from './image/remove-image.ts';
import { attach } from './runtime/attach.ts';
import { containerStatus } from './runtime/container-status.ts';
import { createContainer } from './runtime/create-container.ts';
import { exec } from './runtime/exec.ts';
import { execSync } from './runtime/exec-sync.ts';
import { listContainers } from './runtime/list-containers.ts';
import { listPodSandbox } from './runtime/list-pod-sandbox.ts';
import { podSandboxStatus } from './runtime/pod-sandbox-status.ts';
import { portForward } from './runtime/port-forward.ts';
import { removeContainer } from './runtime/remove-container.ts';
import { removePodSandbox } from './runtime/remove-pod-sandbox.ts';
import { runPodSandbox } from './runtime/run-pod-sandbox.ts';
import { runtimeConfig } from './runtime/runtime-config.ts';
import { startContainer } from './runtime/start-container.ts';
import { status } from './runtime/status.ts';
import { stopContainer } from './runtime/stop-container.ts';
import { stopPodSandbox } from './runtime/stop-pod-sandbox.ts';
import { version } from './runtime/version.ts';

/** An RPC that this runtime does not have; clients fall back on UNIMPLEMENTED, and remember it. */
const ABSENT = { kind: 'absent' } as const;

/** An RPC answered with one message. */
const one = <Request, Response>(handle: Handler<Request, Response>) => ({ kind: 'unary', handle }) as const;

type Entry<M extends CriMethod> =
  | typeof ABSENT
  | (M extends CriStreamMethod
      ? never
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
  StreamPodSandboxes: ABSENT,
  StreamContainers: ABSENT,
  UpdateContainerResources: ABSENT,
  ReopenContainerLog: ABSENT,
  ContainerStats: ABSENT,
  ListContainerStats: ABSENT,
  StreamContainerStats: ABSENT,
  PodSandboxStats: ABSENT,
  ListPodSandboxStats: ABSENT,
  StreamPodSandboxStats: ABSENT,
  UpdateRuntimeConfig: ABSENT,
  CheckpointContainer: ABSENT,
  CheckpointPod: ABSENT,
  RestorePod: ABSENT,
  GetContainerEvents: ABSENT,
  ListMetricDescriptors: ABSENT,
  ListPodSandboxMetrics: ABSENT,
  StreamPodSandboxMetrics: ABSENT,
  UpdatePodSandboxResources: ABSENT,
} as const satisfies { readonly [M in keyof RuntimeMethods]: Entry<M> };

export const IMAGE_TABLE = {
  ListImages: one(listImages),
  ImageStatus: one(imageStatus),
  PullImage: one(pullImage),
  RemoveImage: one(removeImage),
  ImageFsInfo: one(imageFsInfo),
  StreamImages: ABSENT,
} as const satisfies { readonly [M in keyof ImageMethods]: Entry<M> };
