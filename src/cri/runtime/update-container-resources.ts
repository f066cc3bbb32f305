/** UpdateContainerResources: other limits for a container that is there, in force in its machine when this returns. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';
import { absent, required } from '../validate/fields.ts';
import { checkPairs, checkResources } from '../validate/linux.ts';

export async function updateContainerResources(
  deps: CriDeps,
  request: CriRequestFull<'UpdateContainerResources'>,
  context: CallContext,
): Promise<CriResponse<'UpdateContainerResources'>> {
  const { id } = lookUp(deps.containers, 'container_id', request.containerId);
  absent('windows', request.windows, 'containers run Linux here');
  const resources = required('linux', request.linux);
  checkResources('linux', resources);
  checkPairs('annotations', request.annotations);
  await deps.containers.updateResources(id, resources, context.signal);
  return {};
}
