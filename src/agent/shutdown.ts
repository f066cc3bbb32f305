/** The orderly end of a machine whose lease has run out: containers get SIGTERM and their grace through containerd, file systems are synced, the power goes off. */
import { errorMessage } from '../base/errors.ts';
import type { Logger } from '../telemetry/log.ts';
import { runCommand } from './commands.ts';
import type { Containerd } from './containerd.ts';
import type { AgentOptions } from './options.ts';
import { runningContainers, stopContainerRequest } from './wire.ts';

const RUNTIME = '/runtime.v1.RuntimeService';
/** Beyond the grace, for containerd's own work. */
const MARGIN_MS = 2000;
const MAX_GRACE_MS = 600_000;

/** Never fails: whatever goes wrong on the way, the machine goes off. */
export async function shutDown(
  graceMs: number,
  containerd: Containerd,
  options: Pick<AgentOptions, 'powerOffCommand'>,
  log: Logger,
): Promise<void> {
  const grace = Math.min(Math.max(graceMs, 0), MAX_GRACE_MS);
  const deadline = Date.now() + grace + MARGIN_MS;
  const signal = AbortSignal.timeout(grace + MARGIN_MS);
  try {
    const listed = await containerd.call(`${RUNTIME}/ListContainers`, Buffer.alloc(0), deadline, signal);
    const ids = runningContainers(listed);
    log.info('stopping containers', { count: ids.length, graceMs: grace });
    await Promise.allSettled(
      ids.map((id) =>
        containerd.call(
          `${RUNTIME}/StopContainer`,
          stopContainerRequest(id, Math.ceil(grace / 1000)),
          deadline,
          signal,
        ),
      ),
    );
  } catch (error) {
    log.warn('containers could not be stopped in order', { error: errorMessage(error) });
  }
  await powerOff(options, log);
}

/** File systems are written out, the power goes off. */
export async function powerOff(options: Pick<AgentOptions, 'powerOffCommand'>, log: Logger): Promise<void> {
  for (const [command, args] of [
    ['sync', []],
    [options.powerOffCommand, ['-f']],
  ] as const) {
    await runCommand(command, args).catch((error: unknown) =>
      log.error('a command of the shutdown failed', { command, error: errorMessage(error) }),
    );
  }
}
