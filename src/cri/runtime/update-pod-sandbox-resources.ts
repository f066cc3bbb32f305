/** UpdatePodSandboxResources: what the pod may use of its machine, up to the machine's size. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';
import { checkResources } from '../validate/linux.ts';

export async function updatePodSandboxResources(
  deps: CriDeps,
  request: CriRequestFull<'UpdatePodSandboxResources'>,
  context: CallContext,
): Promise<CriResponse<'UpdatePodSandboxResources'>> {
  const { id } = lookUp(deps.sandboxes, 'pod_sandbox_id', request.podSandboxId);
  checkResources('overhead', request.overhead);
  checkResources('resources', request.resources);
  await deps.sandboxes.updateResources(id, request.resources, request.overhead, context.signal);
  return {};
}
