/** StopPodSandbox: ends the pod's containers and gives the machine back. Idempotent; succeeds on the unknown. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { wholeId } from '../lookup.ts';

export async function stopPodSandbox(
  deps: CriDeps,
  request: CriRequestFull<'StopPodSandbox'>,
  context: CallContext,
): Promise<CriResponse<'StopPodSandbox'>> {
  const id = wholeId(deps.sandboxes, 'pod_sandbox_id', request.podSandboxId);
  await deps.sandboxes.stop(id, context.signal);
  return {};
}
