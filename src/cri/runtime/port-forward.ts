/** PortForward: a URL where the client reaches ports of the pod. SPDY clients name the ports there, not here. */
import type { StreamRequest } from '../../container/service.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';
import { range } from '../validate/fields.ts';

export function portForward(deps: CriDeps, request: CriRequestFull<'PortForward'>): CriResponse<'PortForward'> {
  for (const [index, port] of request.port.entries()) range(`port[${index}]`, port, 1, 65_535);
  const { id } = lookUp(deps.sandboxes, 'pod_sandbox_id', request.podSandboxId);
  const target: StreamRequest = { kind: 'portforward', sandboxId: id, ports: request.port };
  deps.containers.checkStream(target);
  return { url: deps.streaming.issue('portforward', async (signal) => deps.containers.openStream(target, signal)) };
}
