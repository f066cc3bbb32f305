/** ListContainers, from memory. The parts of a filter add up: a container must meet all of them. */
import { CONTAINER_STATES } from '../../container/service.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { listedContainer } from '../convert/container.ts';
import type { CriDeps } from '../deps.ts';
import { labelMatcher, selectById } from '../lookup.ts';
import { oneOf } from '../validate/fields.ts';

export function listContainers(
  deps: CriDeps,
  { filter }: CriRequestFull<'ListContainers'>,
): CriResponse<'ListContainers'> {
  let views = deps.containers.list();
  if (filter) {
    const state = filter.state?.state;
    if (state !== undefined) oneOf('filter.state.state', state, CONTAINER_STATES);
    const matches = labelMatcher(filter.labelSelector);
    const sandboxIds =
      filter.podSandboxId === ''
        ? undefined
        : new Set<string>(selectById(deps.sandboxes.list(), filter.podSandboxId).map((sandbox) => sandbox.id));
    views = selectById(views, filter.id).filter(
      (view) =>
        (state === undefined || view.state === state) &&
        (sandboxIds === undefined || sandboxIds.has(view.sandboxId) || view.sandboxId === filter.podSandboxId) &&
        matches(view.config.labels),
    );
  }
  return { containers: views.map(listedContainer) };
}
