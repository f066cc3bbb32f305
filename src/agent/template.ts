/**
 * The agent inside a template: a machine that is booted once, without user data, to be frozen and cloned. It gets all
 * ready that holds no secret and then waits. Every clone wakes up in this very place, finds its own user data where the
 * template found none, and becomes itself: clock and kernel randomness first, everything that is secret or its own after.
 *
 * Randomness of this process: OpenSSL's generators reseed from the kernel when the time of day is before that of their
 * last seed, and a template's clock runs decades ahead (the provider's `-rtc`), so the step back is what renews them.
 * Two sources of Node must never be used for anything that has to differ: Math.random, which is seeded once per process,
 * and crypto.randomUUID and randomInt, which hand out numbers drawn ahead.
 */
import { errorMessage } from '../base/errors.ts';
import { collectGarbage } from '../base/passing-bytes.ts';
import { systemClock } from '../base/time.ts';
import type { AgentDefinition } from '../gen/infralet/agent/v1/Agent.ts';
import type { UserData } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { listenForImages, rehearseContainer } from './container-rehearsal.ts';
import { connectContainerd, noteContainerd } from './containerd.ts';
import type { Door } from './door.ts';
import { type AgentOptions, LIMITS } from './options.ts';
import { awaitPod, makeTemplateSandbox } from './pod-sandbox.ts';
import { prepareRefreshes, refresh } from './refresh.ts';
import { rehearse } from './rehearsal.ts';
import type { Phases } from './status.ts';
import { readUserData } from './user-data.ts';

/** Largest message while there is no user data to say it; only a probe goes to containerd then. */
const PROBE_MESSAGE = 64 * 1024;

/** A machine without a scratch disk never says that it has grown. */
const GROW_MS = 20_000;

/** When it wakes up, and when the daemon has told it the time. */
const REFRESHES = 2;

/** Said on the console when the machine may be frozen; the provider waits for it. */
const READY = 'infralet: template ready';

/** Resolves in a clone, with its user data; clock and random generators are its own by then. Never in the template. */
export async function becomeClone(parts: {
  readonly door: Door;
  readonly service: AgentDefinition;
  readonly options: AgentOptions;
  readonly phases: Phases;
  readonly log: Logger;
  readonly signal: AbortSignal;
}): Promise<UserData> {
  const { door, options, phases, log } = parts;
  log.info('no user data: this machine is a template');
  const containerd = connectContainerd(options.containerdSocket, PROBE_MESSAGE);
  await noteContainerd(containerd, phases, parts.signal);
  const sandboxId = await makeTemplateSandbox(containerd, options, log);
  if (sandboxId !== '') {
    await rehearseContainer(sandboxId, containerd, options, listenForImages(options.images)).catch((error: unknown) =>
      log.warn('the rehearsal of a container failed', { error: errorMessage(error) }),
    );
  }
  await rehearse({ service: parts.service, options, phases, log, containerd }).catch((error: unknown) =>
    log.warn('the rehearsal failed', { error: errorMessage(error) }),
  );
  containerd[Symbol.dispose]();
  await awaitPod(options).catch((error: unknown) =>
    log.warn('nothing waits for the pod in its sandbox', { error: errorMessage(error) }),
  );
  prepareRefreshes(REFRESHES, options);
  // What is garbage here would be collected by each clone, and written to by it.
  collectGarbage('major');
  await scratchGrown(phases, options, parts.signal);
  process.stderr.write(`${READY}\n`);
  for (;;) {
    await door.knocked();
    const userData = look(options.userDataFile, log);
    if (userData) {
      phases.restart();
      phases.mark('thaw');
      await refresh({ clockMs: userData.clockMs, entropy: Buffer.from(userData.entropy, 'base64url') }, options);
      phases.mark('refreshed');
      return userData;
    }
    door.dismiss();
  }
}

function look(file: string, log: Logger): UserData | undefined {
  try {
    return readUserData(file);
  } catch (error) {
    log.error('the user data cannot be used', { error: errorMessage(error) });
    return undefined;
  }
}

/** init enlarges the file system beside us; the clones' disks are as large as the template's. */
async function scratchGrown(phases: Phases, options: AgentOptions, signal: AbortSignal): Promise<void> {
  for (
    let waited = 0;
    waited < GROW_MS && !('scratch' in phases.all(options.phasesFile));
    waited += LIMITS.resubscribeMs
  ) {
    await systemClock.sleep(LIMITS.resubscribeMs, signal);
  }
}
