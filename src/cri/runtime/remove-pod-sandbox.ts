/** RemovePodSandbox: forgets the pod and its containers. Idempotent; succeeds on the unknown. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { wholeId } from '../lookup.ts';

export async function removePodSandbox(
  deps: CriDeps,
  request: CriRequestFull<'RemovePodSandbox'>,
  context: CallContext,
): Promise<CriResponse<'RemovePodSandbox'>> {
  const id = wholeId(deps.sandboxes, 'pod_sandbox_id', request.podSandboxId);
  await deps.sandboxes.remove(id, context.signal);
  return {};
}
