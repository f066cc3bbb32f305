/** RemoveContainer: ends it when it still runs. Idempotent; succeeds on the unknown. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { wholeId } from '../lookup.ts';

export async function removeContainer(
  deps: CriDeps,
  request: CriRequestFull<'RemoveContainer'>,
  context: CallContext,
): Promise<CriResponse<'RemoveContainer'>> {
  const id = wholeId(deps.containers, 'container_id', request.containerId);
  await deps.containers.remove(id, context.signal);
  return {};
}
