/** ExecSync: runs a command and returns what it wrote. Exec probes live on it. */
import { withTimeout } from '../../base/time.ts';
import type { CallContext } from '../../rpc/adapter.ts';
import { withinCall } from '../../rpc/calls.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { lookUp } from '../lookup.ts';
import { checkArguments } from '../validate/container-config.ts';
import { invalid } from '../validate/fields.ts';
import { seconds } from '../validate/seconds.ts';

/** The most of each stream that is kept, as containerd does; what is over is dropped. */
const MAX_STREAM = 16 * 1024 * 1024;
/** Room in the message for everything but the output. */
const OVERHEAD = 1024;
/** The machine ends the command when its time is over; an unresponsive one shall not keep the kubelet waiting. */
const GRACE_MS = 2000;

export async function execSync(
  deps: CriDeps,
  request: CriRequestFull<'ExecSync'>,
  context: CallContext,
): Promise<CriResponse<'ExecSync'>> {
  if (request.cmd.length === 0) invalid('cmd', 'must not be empty');
  checkArguments('cmd', request.cmd);
  const timeout = seconds('timeout', request.timeout);
  const { id } = lookUp(deps.containers, 'container_id', request.containerId);
  const result = await limited(timeout, context.signal, async (signal) =>
    deps.containers.execSync(id, request.cmd, timeout, signal),
  );
  const [stdout, stderr] = cutToRoom(result.stdout, result.stderr, deps.config.server.maxMessage - OVERHEAD);
  return { stdout, stderr, exitCode: result.exitCode };
}

async function limited<T>(timeout: number, parent: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  if (timeout === 0) return work(parent);
  using signal = withTimeout(parent, Math.min(timeout * 1000 + GRACE_MS, 2 ** 31 - 1), 'the command');
  return await withinCall(work(signal), signal);
}

/** Cuts both to what a message may hold; neither starves the other. */
export function cutToRoom(stdout: Buffer, stderr: Buffer, room: number): readonly [Buffer, Buffer] {
  const most = Math.min(MAX_STREAM, room);
  const half = Math.floor(room / 2);
  const errors = Math.min(stderr.length, Math.max(half, room - stdout.length), most);
  const output = Math.min(stdout.length, room - errors, most);
  return [stdout.subarray(0, output), stderr.subarray(0, errors)];
}
