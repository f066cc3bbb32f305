/** The pod that `serve --demo` runs: shows that a machine boots, that its container runs, and how long each step took. */
import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { AdminClient } from '../admin/client.ts';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { printable } from '../base/text.ts';
import { until, withTimeout } from '../base/time.ts';
import type { Config } from '../config/schema.ts';
import type { CriClient } from './cri-client.ts';
import { indent } from './format.ts';
import { type Io, line } from './io.ts';
import { formatTimeline, sandboxInfo } from './sandbox-info.ts';

export interface DemoImage {
  /** Name under which the image is known once loaded. */
  readonly name: string;
  /** Writes an OCI layout below `directory`; returns a source for `image load`. */
  readonly make: (directory: string, signal: AbortSignal) => Promise<string>;
}

export interface DemoDeps {
  readonly cri: CriClient;
  readonly admin: AdminClient;
  readonly image: DemoImage;
  /** The configuration file as the user gave it, for the commands that are shown. */
  readonly configFile: string | undefined;
}

const LABEL = 'infralet.dev/demo';
/** The last line that the demo container writes. */
const LAST_LINE = 'ready';
const SCRIPT = [
  'echo "hello from $(hostname)"',
  'echo "kernel $(uname -r), $(grep -c ^processor /proc/cpuinfo) CPU, $(free -m | awk \'/^Mem/ {print $2}\') MiB of memory"',
  'echo "address $(ip -4 -o addr show dev eth0 | awk \'{print $4}\')"',
  `echo ${LAST_LINE}`,
  // A shell as process 1 must ask for SIGTERM to end by it; `wait` lets the trap run at once.
  "trap 'exit 0' TERM",
  'while :; do sleep 3600 & wait $!; done',
].join('\n');

/** Booting plus some: a slow host under software emulation. */
const RUN_MS = 240_000;
const CALL_MS = 60_000;
const LOG_MS = 30_000;
const LOG_POLL_MS = 50;

/** Runs the pod and prints what happened; disposing of the result removes the pod. */
export async function runDemo(deps: DemoDeps, config: Config, io: Io): Promise<AsyncDisposable> {
  const { cri } = deps;
  const limits = { signal: io.signal, timeoutMs: CALL_MS };
  const logDirectory = join(config.stateDir, 'demo', 'logs');
  await removePods(cri, limits.signal);
  await using stack = new AsyncDisposableStack();
  stack.defer(async () => {
    // The user's signal has fired by now; the clean-up has its own time.
    await removePods(cri, AbortSignal.timeout(CALL_MS));
    await rm(dirname(logDirectory), { recursive: true, force: true });
  });
  await mkdir(logDirectory, { recursive: true });
  await ensureImage(deps, config, io);
  line(io.err, 'demo: starting a pod in a machine of its own …');
  const metadata = { name: 'demo', uid: randomUUID(), namespace: 'default', attempt: 0 };
  // Those that a kubelet sets: crictl takes the names that it shows from them.
  const labels = {
    'io.kubernetes.pod.name': metadata.name,
    'io.kubernetes.pod.namespace': metadata.namespace,
    'io.kubernetes.pod.uid': metadata.uid,
  };
  const sandbox = {
    metadata,
    hostname: 'demo',
    logDirectory,
    labels: { ...labels, [LABEL]: 'true' },
    linux: {},
  };
  const run = { signal: io.signal, timeoutMs: RUN_MS };
  const { podSandboxId } = await cri.call('RunPodSandbox', { config: sandbox }, run);
  const container = {
    metadata: { name: 'hello', attempt: 0 },
    image: { image: deps.image.name },
    command: ['/bin/sh', '-c', SCRIPT],
    logPath: 'hello.log',
    labels: { ...labels, 'io.kubernetes.container.name': 'hello' },
    linux: {},
  };
  const create = { podSandboxId, config: container, sandboxConfig: sandbox };
  const { containerId } = await cri.call('CreateContainer', create, run);
  await cri.call('StartContainer', { containerId }, run);
  const output = await readOutput(join(logDirectory, container.logPath), io.signal);
  const info = await sandboxInfo(cri, podSandboxId, limits);
  line(io.out, 'Boot of the demo pod:');
  line(io.out, indent(formatTimeline(info.timeline)));
  line(io.out, 'Its output:');
  line(io.out, indent(printable(output)));
  line(io.out, usage(deps, config, podSandboxId, containerId));
  return stack.move();
}

async function ensureImage({ cri, admin, image }: DemoDeps, config: Config, io: Io): Promise<void> {
  const limits = { signal: io.signal, timeoutMs: CALL_MS };
  const { image: known } = await cri.call('ImageStatus', { image: { image: image.name } }, limits);
  if (known) return;
  line(io.err, 'demo: making an image from busybox …');
  const directory = await mkdtemp(join(config.stateDir, 'demo', 'image-'));
  try {
    await admin.loadImage(await image.make(directory, io.signal), [image.name], limits);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Also what an earlier run left when it was killed. */
async function removePods(cri: CriClient, signal: AbortSignal): Promise<void> {
  const limits = { signal, timeoutMs: CALL_MS };
  const { items } = await cri.call('ListPodSandbox', { filter: { labelSelector: { [LABEL]: 'true' } } }, limits);
  for (const { id } of items) {
    await cri.call('StopPodSandbox', { podSandboxId: id }, limits);
    await cri.call('RemovePodSandbox', { podSandboxId: id }, limits);
  }
}

/** The container's lines, once the last one has arrived. */
async function readOutput(file: string, parent: AbortSignal): Promise<string> {
  using signal = withTimeout(parent, LOG_MS, 'the output of the demo container');
  return await until(
    async () => {
      const lines = parseCriLog(await readLog(file));
      return lines.includes(LAST_LINE) ? lines.join('\n') : undefined;
    },
    { everyMs: LOG_POLL_MS, signal },
  );
}

async function readLog(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return '';
    throw new InfraletError('INTERNAL', `cannot read the log of the demo container, ${file}`, { cause: error });
  }
}

/** Texts of a CRI log file, whose lines read "<time> <stream> <F|P> <text>"; parts are joined. */
export function parseCriLog(content: string): readonly string[] {
  const lines: string[] = [];
  let open = '';
  for (const entry of content.split('\n')) {
    const match = /^\S+ (?:stdout|stderr) ([FP])(?: (.*))?$/.exec(entry);
    if (!match) continue;
    open += match[2] ?? '';
    if (match[1] === 'P') continue;
    lines.push(open);
    open = '';
  }
  return lines;
}

function usage({ configFile }: DemoDeps, config: Config, podSandboxId: string, containerId: string): string {
  const endpoint = `unix://${config.server.socket}`;
  const crictl = `crictl -r ${endpoint} -i ${endpoint} -t 180s`;
  const option = configFile === undefined ? '' : ` --config ${configFile}`;
  return [
    '',
    'The daemon serves until Ctrl-C. In another terminal (crictl comes with cri-tools):',
    `  ${crictl} pods`,
    `  ${crictl} logs ${containerId.slice(0, 13)}`,
    `  ${crictl} exec -it ${containerId.slice(0, 13)} /bin/sh`,
    `  npm run infralet -- ps${option}`,
    `  npm run infralet -- describe ${podSandboxId.slice(0, 13)}${option}`,
  ].join('\n');
}
