/** CreateContainer in a sandbox that is there. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { checkId, lookUp } from '../lookup.ts';
import { checkContainerConfig } from '../validate/container-config.ts';
import { checkSandboxConfig } from '../validate/sandbox-config.ts';

export async function createContainer(
  deps: CriDeps,
  request: CriRequestFull<'CreateContainer'>,
  context: CallContext,
): Promise<CriResponse<'CreateContainer'>> {
  checkId('pod_sandbox_id', request.podSandboxId);
  const config = checkContainerConfig('config', request.config);
  const sandboxConfig = request.sandboxConfig ? checkSandboxConfig('sandbox_config', request.sandboxConfig) : undefined;
  const sandbox = lookUp(deps.sandboxes, 'pod_sandbox_id', request.podSandboxId);
  const containerId = await deps.containers.create(sandbox.id, config, sandboxConfig, context.signal);
  return { containerId };
}
