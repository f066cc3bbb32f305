/** ContainerStatus, from memory. */
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { verboseInfo } from '../convert/info.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';

export function containerStatus(
  deps: CriDeps,
  request: CriRequestFull<'ContainerStatus'>,
): CriResponse<'ContainerStatus'> {
  const view = lookUp(deps.containers, 'container_id', request.containerId);
  return { status: view.status(), info: verboseInfo(request.verbose, view.info) };
}
