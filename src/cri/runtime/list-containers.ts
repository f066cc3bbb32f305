/** ListContainers and StreamContainers, from memory. The parts of a filter add up: a container must meet all of them. */
import { CONTAINER_STATES, type ContainerView } from '../../container/service.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { listedContainer } from '../convert/container.ts';
import { kept } from '../convert/memo.ts';
import type { CriDeps } from '../deps.ts';
import { listedWeight, pieces } from '../pieces.ts';
import { selectContainers, selects } from '../select.ts';
import { oneOf } from '../validate/fields.ts';

type Response = CriResponse<'ListContainers'>;
type Filter = NonNullable<CriRequestFull<'ListContainers'>['filter']>;

const byState = kept((views: readonly ContainerView[], state: string | undefined): Response => {
  const wanted = state === undefined ? views : views.filter((view) => view.state === state);
  return { containers: wanted.map(listedContainer) };
});

export function listContainers(deps: CriDeps, { filter }: CriRequestFull<'ListContainers'>): Response {
  const state = filter?.state?.state;
  if (state !== undefined) oneOf('filter.state.state', state, CONTAINER_STATES);
  if (filter && selects(filter)) return { containers: listedOnes(deps, filter).map(listedContainer) };
  return byState(deps.containers.list(), state);
}

/** StreamContainers: the same in pieces, for nodes whose list outgrows one message. */
export async function* streamContainers(
  deps: CriDeps,
  request: CriRequestFull<'StreamContainers'>,
): AsyncGenerator<CriResponse<'StreamContainers'>> {
  const { containers = [] } = listContainers(deps, request);
  for (const piece of pieces(containers, listedWeight)) yield { containers: piece };
}

function listedOnes(deps: CriDeps, filter: Filter): readonly ContainerView[] {
  const state = filter.state?.state;
  const selected = selectContainers(deps, filter);
  return state === undefined ? selected : selected.filter((view) => view.state === state);
}
