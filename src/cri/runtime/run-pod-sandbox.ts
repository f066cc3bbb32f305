/** RunPodSandbox: blocks until the pod's machine and network are ready. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { requireSeccomp } from '../../volume/seccomp.ts';
import type { CriDeps } from '../deps.ts';
import { oneOf } from '../validate/fields.ts';
import { checkSandboxConfig } from '../validate/sandbox-config.ts';

export async function runPodSandbox(
  deps: CriDeps,
  request: CriRequestFull<'RunPodSandbox'>,
  context: CallContext,
): Promise<CriResponse<'RunPodSandbox'>> {
  const config = checkSandboxConfig('config', request.config);
  oneOf('runtime_handler', request.runtimeHandler, deps.config.runtimeHandlers);
  await requireSeccomp(config.linux?.securityContext ?? null);
  const podSandboxId = await deps.sandboxes.run(config, request.runtimeHandler, context.signal, context.traceparent);
  return { podSandboxId };
}
