/** StartContainer: runs what CreateContainer made. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';

export async function startContainer(
  deps: CriDeps,
  request: CriRequestFull<'StartContainer'>,
  context: CallContext,
): Promise<CriResponse<'StartContainer'>> {
  const { id } = lookUp(deps.containers, 'container_id', request.containerId);
  await deps.containers.start(id, context.signal);
  return {};
}
