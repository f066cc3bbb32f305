/** ReopenContainerLog: the kubelet has renamed the log's file; a new one takes what comes from now on. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';

export async function reopenContainerLog(
  deps: CriDeps,
  request: CriRequestFull<'ReopenContainerLog'>,
  context: CallContext,
): Promise<CriResponse<'ReopenContainerLog'>> {
  const { id } = lookUp(deps.containers, 'container_id', request.containerId);
  await deps.containers.reopenLog(id, context.signal);
  return {};
}
