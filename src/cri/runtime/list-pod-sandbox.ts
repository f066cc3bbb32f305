/** ListPodSandbox, from memory. The parts of a filter add up: a sandbox must meet all of them. */
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { listedSandbox } from '../convert/sandbox.ts';
import type { CriDeps } from '../deps.ts';
import { labelMatcher, selectById } from '../lookup.ts';
import { oneOf } from '../validate/fields.ts';

export function listPodSandbox(
  deps: CriDeps,
  { filter }: CriRequestFull<'ListPodSandbox'>,
): CriResponse<'ListPodSandbox'> {
  let views = deps.sandboxes.list();
  if (filter) {
    const state = filter.state?.state;
    if (state !== undefined) oneOf('filter.state.state', state, ['SANDBOX_READY', 'SANDBOX_NOTREADY']);
    const matches = labelMatcher(filter.labelSelector);
    views = selectById(views, filter.id).filter(
      (view) => (state === undefined || view.ready === (state === 'SANDBOX_READY')) && matches(view.config.labels),
    );
  }
  return { items: views.map(listedSandbox) };
}
