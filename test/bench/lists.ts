/**
 * npm run bench:lists: what a kubelet asks for all the time, against a daemon that holds thousands of sandboxes of two
 * containers. Client and daemon are two processes; the client makes the sandboxes through the CRI, too.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import PQueue from 'p-queue';
import { type CriClient, criClient } from '../support/cri-client.ts';
import { count, counts } from './arguments.ts';
import { IMAGE, type Timing, timeLists } from './lists-calls.ts';
import type { Answer, Ask } from './lists-messages.ts';
import { peakResident } from './process-memory.ts';
import type { Hot } from './profile.ts';
import { environment, finish, mebibytes, ms, runBench, say, table } from './report.ts';
import { kubeletContainer, kubeletPod } from './requests.ts';

const USAGE = `usage: npm run bench:lists -- [--sizes 100,1000,5000] [--calls N] [--profile] [--json FILE]`;
const PARALLEL = 16;

interface Row extends Timing {
  readonly sandboxes: number;
  readonly hot: readonly Hot[];
}

interface MemoryRow {
  readonly sandboxes: number;
  /** Bytes resident at the end of the calls, then after a garbage collection; most ever; live objects. */
  readonly resident: number;
  readonly settled: number;
  readonly peak: number;
  readonly heap: number;
  /** Making the sandboxes, from the size before. */
  readonly growth: Growth;
}

class Daemon implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly cri: CriClient;

  private constructor(child: ChildProcess, cri: CriClient) {
    this.#child = child;
    this.cri = cri;
  }

  static async start(directory: string): Promise<Daemon> {
    const child = fork(join(import.meta.dirname, 'lists-daemon.ts'), [directory]);
    await once(child, 'message', { signal: AbortSignal.timeout(30_000) });
    return new Daemon(child, criClient(join(directory, 'cri.sock')));
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async ask(question: Ask): Promise<Answer> {
    const answered = once(this.#child, 'message', { signal: AbortSignal.timeout(60_000) });
    this.#child.send(question);
    const [answer] = (await answered) as [Answer];
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cri[Symbol.dispose]();
    if (this.#child.exitCode !== null) return;
    const gone = once(this.#child, 'exit');
    // Its state is in a temporary directory: nothing to end in good order.
    this.#child.kill('SIGKILL');
    await gone;
  }
}

async function makeSandbox(cri: CriClient, serial: number): Promise<void> {
  const pod = kubeletPod(`bench-${serial}`, '');
  const limits = { timeoutMs: 120_000 };
  const { podSandboxId } = await cri.RunPodSandbox({ config: pod }, limits);
  for (const name of ['main', 'sidecar']) {
    const config = kubeletContainer(pod, name, IMAGE, ['/bin/app'], '');
    const { containerId } = await cri.CreateContainer({ podSandboxId, config, sandboxConfig: pod }, limits);
    await cri.StartContainer({ containerId }, limits);
  }
}

interface Growth {
  readonly seconds: number;
  /** CPU time of the daemon for one sandbox, milliseconds. */
  readonly cpuMs: number;
}

async function grow(daemon: Daemon, from: number, to: number): Promise<Growth> {
  const before = (await daemon.ask('state')).state.cpuMs;
  const started = performance.now();
  const queue = new PQueue({ concurrency: PARALLEL });
  await queue.addAll(Array.from({ length: to - from }, (_, index) => () => makeSandbox(daemon.cri, from + index)));
  const seconds = (performance.now() - started) / 1000;
  return { seconds, cpuMs: ((await daemon.ask('state')).state.cpuMs - before) / (to - from) };
}

async function measure(daemon: Daemon, sandboxes: number, calls: number, profile: boolean): Promise<readonly Row[]> {
  const { cri } = daemon;
  const { items } = await cri.ListPodSandbox();
  const { containers } = await cri.ListContainers();
  if (items.length !== sandboxes || containers.length !== 2 * sandboxes) {
    throw new Error(`${items.length} sandboxes and ${containers.length} containers are listed; ${sandboxes} were made`);
  }
  const profiles = new Map<string, readonly Hot[]>();
  const timings = await timeLists(cri, calls, {
    cpuMs: async () => (await daemon.ask('state')).state.cpuMs,
    begin: async () => {
      if (profile) await daemon.ask('profile');
    },
    end: async (call) => {
      if (profile) profiles.set(call, (await daemon.ask('profiled')).hot ?? []);
    },
  });
  return timings.map((timing) => ({ sandboxes, ...timing, hot: profiles.get(timing.call) ?? [] }));
}

async function memory(daemon: Daemon, sandboxes: number, growth: Growth): Promise<MemoryRow> {
  const { state, settled = 0, heap = 0 } = await daemon.ask('memory');
  return { sandboxes, resident: state.resident, settled, heap, peak: await peakResident(daemon.pid), growth };
}

function print(rows: readonly Row[], memories: readonly MemoryRow[]): void {
  table(
    ['SANDBOXES', 'CALL', 'KIB', 'P50 MS', 'P95 MS', 'P99 MS', 'MAX MS', 'CPU MS PER CALL'],
    rows.map((row) => [
      String(row.sandboxes),
      row.call,
      (row.bytes / 1024).toFixed(0),
      ...[row.p50, row.p95, row.p99, row.max].map(ms),
      ms(row.cpuMs),
    ]),
  );
  table(
    ['SANDBOXES', 'RESIDENT MIB', 'AFTER COLLECTION', 'PEAK', 'LIVE OBJECTS', 'MADE IN S', 'CPU MS FOR ONE'],
    memories.map((row) => [
      String(row.sandboxes),
      ...[row.resident, row.settled, row.peak, row.heap].map(mebibytes),
      row.growth.seconds.toFixed(1),
      ms(row.growth.cpuMs),
    ]),
  );
  for (const { sandboxes, call, hot } of rows.filter((row) => row.hot.length > 0)) {
    say(`where the daemon's time goes: ${call}, ${sandboxes} sandboxes`);
    table(
      ['SHARE', 'FUNCTION'],
      hot.map(({ where, share }) => [`${(share * 100).toFixed(1)} %`, where]),
    );
  }
}

async function main(interrupted: AbortSignal): Promise<void> {
  const { values } = parseArgs({
    options: {
      sizes: { type: 'string', default: '100,1000,5000' },
      calls: { type: 'string', default: '200' },
      profile: { type: 'boolean', default: false },
      json: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return say(USAGE);
  const sizes = [...counts('sizes', values.sizes)].sort((a, b) => a - b);
  const where = environment();
  const directory = await mkdtemp(join(tmpdir(), 'infralet-bench-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const daemon = stack.use(await Daemon.start(directory));
  const rows: Row[] = [];
  const memories: MemoryRow[] = [];
  let present = 0;
  for (const size of sizes) {
    const growth = await grow(daemon, present, size);
    present = size;
    rows.push(...(await measure(daemon, size, count('calls', values.calls), values.profile)));
    memories.push(await memory(daemon, size, growth));
    interrupted.throwIfAborted();
  }
  print(rows, memories);
  await finish({ bench: 'lists', environment: where(), rows, memories }, values.json);
}

await runBench(main);
