/** ContainerStats, ListContainerStats and StreamContainerStats: the newest samples, from memory. */
import { InfraletError } from '../../base/errors.ts';
import type { ContainerView } from '../../container/service.ts';
import type { ContainerStats } from '../../gen/runtime/v1/ContainerStats.ts';
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { ContainerUsage } from '../../stats/service.ts';
import { containerStats as convert } from '../convert/stats.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';
import { listedWeight, pieces } from '../pieces.ts';
import { selectContainers, selects } from '../select.ts';

/** Of one container. The one call that may ask a machine, when the newest sample is missing or old. */
export async function containerStats(
  deps: CriDeps,
  request: CriRequestFull<'ContainerStats'>,
  context: CallContext,
): Promise<CriResponse<'ContainerStats'>> {
  const view = lookUp(deps.containers, 'container_id', request.containerId);
  if (view.state !== 'CONTAINER_RUNNING') {
    throw new InfraletError('FAILED_PRECONDITION', `container ${view.id} has no figures: it is ${view.state}`);
  }
  await deps.stats.freshContainer(view.id, context.signal);
  return { stats: listedStats(deps, view) };
}

export function listContainerStats(
  deps: CriDeps,
  { filter }: CriRequestFull<'ListContainerStats'>,
): CriResponse<'ListContainerStats'> {
  const views = filter && selects(filter) ? selectContainers(deps, filter) : deps.containers.list();
  return { stats: views.map((view) => listedStats(deps, view)) };
}

export async function* streamContainerStats(
  deps: CriDeps,
  request: CriRequestFull<'StreamContainerStats'>,
): AsyncGenerator<CriResponse<'StreamContainerStats'>> {
  const { stats = [] } = listContainerStats(deps, request);
  for (const piece of pieces(stats, statsWeight)) yield { containerStats: piece };
}

export function statsWeight({ attributes }: ContainerStats): number {
  const { labels, annotations } = attributes ?? {};
  return listedWeight({ labels: labels ?? {}, annotations: annotations ?? {} });
}

const shown = new WeakMap<
  ContainerView,
  { readonly usage: ContainerUsage | undefined; readonly stats: ContainerStats }
>();

/** The same object as long as nothing changes; see itemwise. */
export function listedStats({ stats, imageDirectory }: CriDeps, view: ContainerView): ContainerStats {
  const usage = stats.container(view.id);
  const known = shown.get(view);
  if (known && known.usage === usage) return known.stats;
  const made = { usage, stats: convert(view, usage, imageDirectory) };
  shown.set(view, made);
  return made.stats;
}
