/** ListPodSandbox and StreamPodSandboxes, from memory. The parts of a filter add up: a sandbox must meet all of them. */
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { SandboxView } from '../../sandbox/service.ts';
import { kept } from '../convert/memo.ts';
import { listedSandbox } from '../convert/sandbox.ts';
import type { CriDeps } from '../deps.ts';
import { listedWeight, pieces } from '../pieces.ts';
import { selectSandboxes, selects } from '../select.ts';
import { oneOf } from '../validate/fields.ts';

type Response = CriResponse<'ListPodSandbox'>;

const byState = kept((views: readonly SandboxView[], state: string | undefined): Response => {
  const wanted = state === undefined ? views : views.filter((view) => hasState(view, state));
  return { items: wanted.map(listedSandbox) };
});

export function listPodSandbox(deps: CriDeps, { filter }: CriRequestFull<'ListPodSandbox'>): Response {
  const views = deps.sandboxes.list();
  const state = filter?.state?.state;
  if (state !== undefined) oneOf('filter.state.state', state, ['SANDBOX_READY', 'SANDBOX_NOTREADY']);
  if (!filter || !selects(filter)) return byState(views, state);
  const selected = selectSandboxes(deps, filter).filter((view) => state === undefined || hasState(view, state));
  return { items: selected.map(listedSandbox) };
}

/** StreamPodSandboxes: the same in pieces, for nodes whose list outgrows one message. */
export async function* streamPodSandboxes(
  deps: CriDeps,
  request: CriRequestFull<'StreamPodSandboxes'>,
): AsyncGenerator<CriResponse<'StreamPodSandboxes'>> {
  const { items = [] } = listPodSandbox(deps, request);
  for (const piece of pieces(items, listedWeight)) yield { podSandboxes: piece };
}

function hasState(view: SandboxView, state: string): boolean {
  return view.ready === (state === 'SANDBOX_READY');
}
