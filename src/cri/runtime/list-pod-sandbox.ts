/** ListPodSandbox, from memory. The parts of a filter add up: a sandbox must meet all of them. */
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { SandboxView } from '../../sandbox/service.ts';
import { kept } from '../convert/memo.ts';
import { listedSandbox } from '../convert/sandbox.ts';
import type { CriDeps } from '../deps.ts';
import { labelMatcher, selectById } from '../lookup.ts';
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
  if (!filter || (filter.id === '' && Object.keys(filter.labelSelector).length === 0)) return byState(views, state);
  const matches = labelMatcher(filter.labelSelector);
  const selected = selectById(views, filter.id).filter(
    (view) => (state === undefined || hasState(view, state)) && matches(view.config.labels),
  );
  return { items: selected.map(listedSandbox) };
}

function hasState(view: SandboxView, state: string): boolean {
  return view.ready === (state === 'SANDBOX_READY');
}
