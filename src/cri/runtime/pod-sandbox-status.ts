/** PodSandboxStatus, with the statuses of the pod's containers, which evented kubelets read from here. */
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { verboseInfo } from '../convert/info.ts';
import { sandboxStatus } from '../convert/sandbox.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';
import { containersBySandbox } from '../select.ts';

export function podSandboxStatus(
  deps: CriDeps,
  request: CriRequestFull<'PodSandboxStatus'>,
): CriResponse<'PodSandboxStatus'> {
  const view = lookUp(deps.sandboxes, 'pod_sandbox_id', request.podSandboxId);
  const members = containersBySandbox(deps.containers.list()).get(view.id) ?? [];
  return {
    status: sandboxStatus(view),
    info: verboseInfo(request.verbose, view.info),
    containersStatuses: members.map((container) => container.status()),
    timestamp: deps.events.stamp(),
  };
}
