/** Exec: a URL where the client runs a command interactively. */
import type { StreamRequest } from '../../container/service.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';
import { checkArguments } from '../validate/container-config.ts';
import { invalid } from '../validate/fields.ts';
import { checkStreams } from '../validate/streams.ts';

export function exec(deps: CriDeps, request: CriRequestFull<'Exec'>): CriResponse<'Exec'> {
  const { cmd, tty, stdin, stdout, stderr } = request;
  if (cmd.length === 0) invalid('cmd', 'must not be empty');
  checkArguments('cmd', cmd);
  checkStreams(request);
  const { id } = lookUp(deps.containers, 'container_id', request.containerId);
  const target: StreamRequest = { kind: 'exec', containerId: id, cmd, tty, stdin, stdout, stderr };
  deps.containers.checkStream(target);
  return { url: deps.streaming.issue('exec', async (signal) => deps.containers.openStream(target, signal)) };
}
