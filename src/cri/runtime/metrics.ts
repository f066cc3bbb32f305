/** ListMetricDescriptors, ListPodSandboxMetrics and StreamPodSandboxMetrics: the same samples under cadvisor's names. */
import { setImmediate as turn } from 'node:timers/promises';
import type { PodSandboxMetrics } from '../../gen/runtime/v1/PodSandboxMetrics.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { SandboxView } from '../../sandbox/service.ts';
import { containerMetrics, DESCRIPTORS, networkMetrics } from '../convert/metrics.ts';
import type { CriDeps } from '../deps.ts';
import { containersBySandbox } from '../select.ts';

/** Pods whose metrics are made without a pause: some milliseconds. They are some 10 KiB for each container. */
const SLICE = 25;

export function listMetricDescriptors(
  _deps: CriDeps,
  _request: CriRequestFull<'ListMetricDescriptors'>,
): CriResponse<'ListMetricDescriptors'> {
  return { descriptors: [...DESCRIPTORS] };
}

export async function listPodSandboxMetrics(
  deps: CriDeps,
  _request: CriRequestFull<'ListPodSandboxMetrics'>,
): Promise<CriResponse<'ListPodSandboxMetrics'>> {
  const podMetrics: PodSandboxMetrics[] = [];
  for await (const slice of slices(deps)) podMetrics.push(...slice);
  return { podMetrics };
}

export async function* streamPodSandboxMetrics(
  deps: CriDeps,
  _request: CriRequestFull<'StreamPodSandboxMetrics'>,
): AsyncGenerator<CriResponse<'StreamPodSandboxMetrics'>> {
  for await (const slice of slices(deps)) yield { podSandboxMetrics: slice };
}

/** Of all pods that are ready; at least one, be it empty. */
async function* slices(deps: CriDeps): AsyncGenerator<PodSandboxMetrics[]> {
  const ready = deps.sandboxes.list().filter((view) => view.ready);
  for (let at = 0; at === 0 || at < ready.length; at += SLICE) {
    yield ready.slice(at, at + SLICE).map((view) => podMetrics(deps, view));
    await turn();
  }
}

function podMetrics({ stats, containers }: CriDeps, pod: SandboxView): PodSandboxMetrics {
  const members = containersBySandbox(containers.list()).get(pod.id) ?? [];
  const known = stats.pod(pod.id);
  return {
    podSandboxId: pod.id,
    metrics: known ? networkMetrics(pod, known) : [],
    containerMetrics: members.flatMap((view) => {
      const usage = stats.container(view.id);
      return usage && view.state === 'CONTAINER_RUNNING' ? containerMetrics(view, pod, usage) : [];
    }),
  };
}
