/** Attach: a URL where the client joins the streams of a container's main process. */
import type { StreamRequest } from '../../container/service.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';
import { checkStreams } from '../validate/streams.ts';

export function attach(deps: CriDeps, request: CriRequestFull<'Attach'>): CriResponse<'Attach'> {
  const { tty, stdin, stdout, stderr } = request;
  checkStreams(request);
  const { id } = lookUp(deps.containers, 'container_id', request.containerId);
  const target: StreamRequest = { kind: 'attach', containerId: id, tty, stdin, stdout, stderr };
  deps.containers.checkStream(target);
  return { url: deps.streaming.issue('attach', async (signal) => deps.containers.openStream(target, signal)) };
}
