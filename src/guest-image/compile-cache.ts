/** Compiles the agent ahead: Node finds the code in a cache inside the image instead of parsing the bundle at each boot. */
import { cp, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import { tryRun } from '../base/process.ts';
import { selfSignedCa } from '../pki/issue.ts';
import { newKeyPair } from '../pki/x509.ts';
import { USER_DATA_VERSION, type UserData } from '../rpc/agent-protocol.ts';

/** The agent's start without a machine around it takes well under a second. */
const WARM_MS = 60_000;

/**
 * Runs with the guest's root as root, in namespaces of its own. The cache is tied to the bundle's path and to Node's flags:
 * both are as in the guest. Node writes the cache when the agent ends. $1: root, $2: writable directory.
 */
const SCRIPT = `set -eu
mount --bind "$2" "$1/run"
mount -t proc proc "$1/proc"
ip link set lo up 2>/dev/null || true
mkdir -p "$2/infralet"
read -r flags <"$1/usr/lib/infralet/node-flags"
chroot "$1" /usr/bin/node $flags /usr/lib/infralet/agent.cjs --user-data /run/user-data.json 2>"$2/log" &
agent=$!
tries=0
until grep -q '"listening"' "$2/log"; do
  kill -0 $agent || { cat "$2/log" >&2; exit 1; }
  tries=$((tries + 1))
  [ $tries -lt 300 ] || { cat "$2/log" >&2; exit 1; }
  sleep 0.1
done
kill $agent
wait $agent || true
`;

export async function warmCompileCache(options: {
  readonly root: string;
  readonly workDir: string;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { root, workDir, signal } = options;
  const run = join(workDir, 'warm');
  await mkdir(run);
  await writeFile(join(run, 'user-data.json'), JSON.stringify(await throwawayUserData()));
  const namespaces = ['--mount', '--net', '--pid', '--fork', '--kill-child', '--propagation', 'private'];
  const result = await tryRun('unshare', [...namespaces, 'sh', '-c', SCRIPT, 'warm', root, run], {
    signal,
    timeoutMs: WARM_MS,
    env: { NODE_COMPILE_CACHE: '/run/cache' },
  });
  const made = await readdir(join(run, 'cache')).catch(() => []);
  if (result.exitCode !== 0 || made.length === 0) {
    throw new InfraletError('INTERNAL', `the new image's agent does not start: ${result.stderr.trim().slice(-1500)}`);
  }
  await cp(join(run, 'cache'), join(root, 'usr/lib/infralet/compile-cache'), { recursive: true });
}

/** The CA's key is forgotten at once, the token opens nothing; neither gets into the image. */
async function throwawayUserData(): Promise<UserData> {
  const now = Date.now();
  const { certificate } = await selfSignedCa(await newKeyPair(), 'image build', {
    notBefore: now - 60_000,
    notAfter: now + 600_000,
  });
  return {
    version: USER_DATA_VERSION,
    cluster: 'image-build',
    sandboxId: '0'.repeat(32),
    token: '0'.repeat(43),
    ca: certificate.toString('pem'),
    clockMs: now,
    entropy: '0'.repeat(43),
    maxMessage: 16 * 1024 * 1024,
  };
}
