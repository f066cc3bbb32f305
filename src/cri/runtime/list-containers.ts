/** ListContainers, from memory. The parts of a filter add up: a container must meet all of them. */
import { CONTAINER_STATES, type ContainerView } from '../../container/service.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { listedContainer } from '../convert/container.ts';
import { kept } from '../convert/memo.ts';
import type { CriDeps } from '../deps.ts';
import { labelMatcher, selectById } from '../lookup.ts';
import { oneOf } from '../validate/fields.ts';

type Response = CriResponse<'ListContainers'>;
type Filter = NonNullable<CriRequestFull<'ListContainers'>['filter']>;

const byState = kept((views: readonly ContainerView[], state: string | undefined): Response => {
  const wanted = state === undefined ? views : views.filter((view) => view.state === state);
  return { containers: wanted.map(listedContainer) };
});

export function listContainers(deps: CriDeps, { filter }: CriRequestFull<'ListContainers'>): Response {
  const views = deps.containers.list();
  const state = filter?.state?.state;
  if (state !== undefined) oneOf('filter.state.state', state, CONTAINER_STATES);
  const others =
    filter && (filter.id !== '' || filter.podSandboxId !== '' || Object.keys(filter.labelSelector).length > 0);
  return others ? { containers: select(deps, views, filter).map(listedContainer) } : byState(views, state);
}

function select(deps: CriDeps, views: readonly ContainerView[], filter: Filter): readonly ContainerView[] {
  const matches = labelMatcher(filter.labelSelector);
  const sandboxIds =
    filter.podSandboxId === ''
      ? undefined
      : new Set<string>(selectById(deps.sandboxes.list(), filter.podSandboxId).map((sandbox) => sandbox.id));
  return selectById(views, filter.id).filter(
    (view) =>
      (!filter.state || view.state === filter.state.state) &&
      (sandboxIds === undefined || sandboxIds.has(view.sandboxId) || view.sandboxId === filter.podSandboxId) &&
      matches(view.config.labels),
  );
}
