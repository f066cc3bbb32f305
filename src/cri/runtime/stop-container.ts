/** StopContainer: its stop signal, then after `timeout` seconds SIGKILL. Idempotent; succeeds on the unknown. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { wholeId } from '../lookup.ts';
import { seconds } from '../validate/seconds.ts';

export async function stopContainer(
  deps: CriDeps,
  request: CriRequestFull<'StopContainer'>,
  context: CallContext,
): Promise<CriResponse<'StopContainer'>> {
  const timeout = seconds('timeout', request.timeout);
  const id = wholeId(deps.containers, 'container_id', request.containerId);
  await deps.containers.stop(id, timeout, context.signal);
  return {};
}
