/** Compiles the agent ahead: Node finds the code in a cache inside the image instead of parsing the bundle at each boot. */
import { cp, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import { tryRun } from '../base/process.ts';

/** The agent's start without a machine around it takes well under a second. */
const WARM_MS = 30_000;

/**
 * Runs the agent of the new root once, with this host's equal Node. It ends at once for want of user data, which is enough:
 * by then everything at the top level has been compiled. The cache is tied to the bundle's path, so the agent is run under
 * the path that it has in the guest.
 */
export async function warmCompileCache(options: {
  readonly node: string;
  readonly root: string;
  readonly workDir: string;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { root, workDir, signal } = options;
  const cache = join(workDir, 'compile-cache');
  await mkdir(cache);
  const script =
    'mount --bind "$2" "$1/run" && exec chroot "$1" /usr/bin/node /usr/lib/infralet/agent.cjs --listen 127.0.0.1:0';
  await tryRun('unshare', ['--mount', '--net', '--propagation', 'private', 'sh', '-c', script, 'warm', root, cache], {
    signal,
    timeoutMs: WARM_MS,
    env: { NODE_COMPILE_CACHE: '/run/cache', PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
  });
  const made = await readdir(join(cache, 'cache')).catch(() => []);
  if (made.length === 0) throw new InfraletError('INTERNAL', 'the agent could not be compiled ahead');
  await cp(join(cache, 'cache'), join(root, 'usr/lib/infralet/compile-cache'), { recursive: true });
}
