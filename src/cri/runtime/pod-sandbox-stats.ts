/** PodSandboxStats, ListPodSandboxStats and StreamPodSandboxStats: the newest samples, from memory. */
import { InfraletError } from '../../base/errors.ts';
import type { PodSandboxStats } from '../../gen/runtime/v1/PodSandboxStats.ts';
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { SandboxView } from '../../sandbox/service.ts';
import { podStats } from '../convert/stats.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';
import { listedWeight, pieces } from '../pieces.ts';
import { containersBySandbox, selectSandboxes, selects } from '../select.ts';
import { listedStats, statsWeight } from './container-stats.ts';

/** Of one pod. May ask its machine, when the newest sample is missing or old. */
export async function podSandboxStats(
  deps: CriDeps,
  request: CriRequestFull<'PodSandboxStats'>,
  context: CallContext,
): Promise<CriResponse<'PodSandboxStats'>> {
  const view = lookUp(deps.sandboxes, 'pod_sandbox_id', request.podSandboxId);
  if (!view.ready) {
    throw new InfraletError('UNAVAILABLE', `pod sandbox ${view.id} has no figures: it is not ready`);
  }
  await deps.stats.freshPod(view.id, context.signal);
  return { stats: statsOf(deps, view) };
}

/** As with containerd, only of sandboxes that are ready. */
export function listPodSandboxStats(
  deps: CriDeps,
  { filter }: CriRequestFull<'ListPodSandboxStats'>,
): CriResponse<'ListPodSandboxStats'> {
  const views = filter && selects(filter) ? selectSandboxes(deps, filter) : deps.sandboxes.list();
  return { stats: views.filter(({ ready }) => ready).map((view) => statsOf(deps, view)) };
}

export async function* streamPodSandboxStats(
  deps: CriDeps,
  request: CriRequestFull<'StreamPodSandboxStats'>,
): AsyncGenerator<CriResponse<'StreamPodSandboxStats'>> {
  const { stats = [] } = listPodSandboxStats(deps, request);
  for (const piece of pieces(stats, podWeight)) yield { podSandboxStats: piece };
}

function podWeight({ attributes, linux }: PodSandboxStats): number {
  const containers = linux?.containers ?? [];
  const own = listedWeight({ labels: attributes?.labels ?? {}, annotations: attributes?.annotations ?? {} });
  return containers.reduce((sum, each) => sum + 1024 + statsWeight(each), own);
}

const shown = new WeakMap<SandboxView, { readonly from: readonly unknown[]; readonly stats: PodSandboxStats }>();

/** The same object as long as nothing changes; see itemwise. */
function statsOf(deps: CriDeps, view: SandboxView): PodSandboxStats {
  const members = containersBySandbox(deps.containers.list()).get(view.id) ?? [];
  const containers = members.map((member) => listedStats(deps, member));
  const from = [deps.stats.pod(view.id), ...containers];
  const known = shown.get(view);
  if (known && known.from.length === from.length && known.from.every((each, index) => each === from[index])) {
    return known.stats;
  }
  const made = { from, stats: podStats(view, deps.stats.pod(view.id), containers) };
  shown.set(view, made);
  return made.stats;
}
