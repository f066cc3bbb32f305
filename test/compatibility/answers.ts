/** One answer at least of every RPC that has a machine in memory behind it, by the name of its message. */
import { credentials } from '@grpc/grpc-js';
import { until } from '../../src/base/time.ts';
import type { ContainerEventResponse__Output } from '../../src/gen/runtime/v1/ContainerEventResponse.ts';
import { loadCri } from '../../src/rpc/load.ts';
import type { CriClient } from '../support/cri-client.ts';
import { IMAGE } from '../support/world.ts';
import type { Subject } from './refusals.ts';
import { fullContainer } from './samples.ts';

export type Answer = readonly [message: string, answer: unknown];

export async function answersOf({ client, podSandboxId, containerId }: Subject, image: string): Promise<Answer[]> {
  const [event, brief] = await Promise.all([firstEvent(client), briefContainer(client, podSandboxId)]);
  await ratesKnown(client, containerId);
  const streams = { containerId, stdout: true };
  const spec = { image: { image } };
  const all = (message: string, answers: readonly unknown[]): Answer[] => answers.map((answer) => [message, answer]);
  return [
    ['RunPodSandboxResponse', { podSandboxId }],
    ['CreateContainerResponse', { containerId }],
    ['ContainerEventResponse', event],
    ['VersionResponse', await client.Version()],
    ['StatusResponse', await client.Status({ verbose: true })],
    ['RuntimeConfigResponse', await client.RuntimeConfig()],
    ['PodSandboxStatusResponse', await client.PodSandboxStatus({ podSandboxId, verbose: true })],
    ['ListPodSandboxResponse', await client.ListPodSandbox()],
    ...all('StreamPodSandboxesResponse', await client.StreamPodSandboxes()),
    ['ContainerStatusResponse', await client.ContainerStatus({ containerId: brief })],
    ['ContainerStatusResponse', await client.ContainerStatus({ containerId, verbose: true })],
    ['ListContainersResponse', await client.ListContainers()],
    ...all('StreamContainersResponse', await client.StreamContainers()),
    ['ExecResponse', await client.Exec({ ...streams, cmd: ['x'] })],
    ['AttachResponse', await client.Attach(streams)],
    ['PortForwardResponse', await client.PortForward({ podSandboxId })],
    ['PullImageResponse', await client.PullImage(spec)],
    ['ImageStatusResponse', await client.ImageStatus({ ...spec, verbose: true })],
    ['ListImagesResponse', await client.ListImages()],
    ...all('StreamImagesResponse', await client.StreamImages()),
    ['ImageFsInfoResponse', await client.ImageFsInfo()],
    ['ContainerStatsResponse', await client.ContainerStats({ containerId })],
    ['ListContainerStatsResponse', await client.ListContainerStats()],
    ...all('StreamContainerStatsResponse', await client.StreamContainerStats()),
    ['PodSandboxStatsResponse', await client.PodSandboxStats({ podSandboxId })],
    ['ListPodSandboxStatsResponse', await client.ListPodSandboxStats()],
    ...all('StreamPodSandboxStatsResponse', await client.StreamPodSandboxStats()),
    ['ListMetricDescriptorsResponse', await client.ListMetricDescriptors()],
    ['ListPodSandboxMetricsResponse', await client.ListPodSandboxMetrics()],
    ...all('StreamPodSandboxMetricsResponse', await client.StreamPodSandboxMetrics()),
  ];
}

/** One that has run and ended. */
async function briefContainer(client: CriClient, podSandboxId: string): Promise<string> {
  const config = fullContainer('brief', IMAGE, import.meta.dirname);
  const { containerId } = await client.CreateContainer({ podSandboxId, config });
  await client.StartContainer({ containerId });
  await client.StopContainer({ containerId });
  return containerId;
}

/** Rates come with the second sample. */
async function ratesKnown(client: CriClient, containerId: string): Promise<void> {
  const known = async () => (await client.ContainerStats({ containerId })).stats?.cpu?.usageNanoCores ?? undefined;
  await until(known, { everyMs: 20, signal: AbortSignal.timeout(10_000) });
}

/** Events go on for ever: the first one is taken that does not have the zero value of its type. */
async function firstEvent({ socket }: CriClient): Promise<ContainerEventResponse__Output | undefined> {
  const { RuntimeService } = loadCri();
  const client = new RuntimeService(`unix:${socket}`, credentials.createInsecure());
  const call = client.GetContainerEvents({}, { deadline: Date.now() + 10_000 });
  try {
    for await (const event of call as AsyncIterable<ContainerEventResponse__Output>) {
      if (event.containerEventType !== 'CONTAINER_CREATED_EVENT') return event;
    }
    return undefined;
  } finally {
    call.cancel();
    client.close();
  }
}
