/**
 * npm run bench:pods: drives a CRI endpoint as a kubelet would, one pod at a time and many at once; with a peer, the same
 * work on both in turns, so that both see the same host.
 */
import { parseArgs } from 'node:util';
import { errorMessage } from '../../src/base/errors.ts';
import { count, counts, socketPath } from './arguments.ts';
import { endPod, execTrue, type RunningPod, startPod } from './pod-life.ts';
import type { Memory } from './process-memory.ts';
import { environment, finish, mebibytes, ms, runBench, say, table } from './report.ts';
import { median, Samples } from './stats.ts';
import { ownDaemon, PEER_IMAGE, runningRuntime, type Target, writeImages } from './target.ts';

const USAGE = `usage: npm run bench:pods -- [options]
  --endpoint unix:///…  the runtime to measure (default: a daemon of our own, on an emulated machine per pod)
  --image REFERENCE     image that it has (default: ${PEER_IMAGE})
  --peer unix:///…      a plain containerd to compare with; see docs/benchmarks.md
  --peer-image REF      image that the peer has (default: ${PEER_IMAGE})
  --rounds N            pods one at a time (default 5)
  --execs N             ExecSync calls per pod (default 5)
  --parallel N,N        pods at once (default 1,5; the whole of it: 1,5,20)
  --pool N              our own daemon keeps N machines waiting; a pod begins when all are there
  --cold                our own daemon boots each machine instead of cloning one
  --json FILE           all figures
  --write-images DIR    only write the images that a peer needs, as OCI layouts`;

interface Burst {
  readonly target: string;
  readonly pods: number;
  /** From the first call until every container runs, milliseconds. */
  readonly startMs: number;
  readonly endMs: number;
  readonly run: Samples;
  /** Why pods failed; their number and that of the others make `pods`. */
  readonly failures: readonly string[];
  /** Of each pod with its sleeping container. */
  readonly memory: readonly Memory[];
}

async function oneAtATime(
  targets: readonly Target[],
  rounds: number,
  execs: number,
  interrupted: AbortSignal,
): Promise<Map<Target, Samples>> {
  const samples = new Map(targets.map((target) => [target, new Samples()]));
  for (let round = 0; round < rounds; round += 1) {
    for (const [target, figures] of samples) {
      await target.filled();
      const pod = await startPod(target, figures);
      for (let i = 0; i < execs; i += 1) await execTrue(target, pod, figures);
      await endPod(target, pod, figures);
      interrupted.throwIfAborted();
    }
  }
  return samples;
}

async function burst(target: Target, pods: number): Promise<Burst> {
  const run = new Samples();
  await target.filled();
  const started = performance.now();
  const starts = await Promise.allSettled(Array.from({ length: pods }, () => startPod(target, run)));
  const startMs = performance.now() - started;
  const running: RunningPod[] = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []));
  const memory = await Promise.all(running.map(({ id }) => target.memory(id)));
  const ending = performance.now();
  await Promise.all(running.map((pod) => endPod(target, pod, run)));
  const endMs = performance.now() - ending;
  const failures = starts.flatMap((start) => (start.status === 'rejected' ? [errorMessage(start.reason)] : []));
  const measured = memory.filter((each) => each !== undefined);
  return { target: target.name, pods, startMs, endMs, run, failures, memory: measured };
}

function printCalls(samples: ReadonlyMap<Target, Samples>): void {
  const [own, peer] = [...samples.values()];
  if (!own) return;
  const names = [...samples.keys()].map(({ name }) => name.toUpperCase());
  table(
    [
      'MS, ONE POD AT A TIME',
      ...names.flatMap((name) => [`${name} P50`, 'P95', 'P99']),
      ...(peer ? ['RATIO OF P50'] : []),
    ],
    own.names.map((call) => [
      call,
      ...[...samples.values()].flatMap((each) => {
        const { p50, p95, p99 } = each.summary(call);
        return [ms(p50), ms(p95), ms(p99)];
      }),
      ...(peer ? [(median(own.of(call)) / median(peer.of(call))).toFixed(1)] : []),
    ]),
  );
}

function printBursts(bursts: readonly Burst[]): void {
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const header = [
    'AT ONCE',
    'RUNTIME',
    'FAILED',
    'SANDBOXES PER S',
    'PODS PER S',
    'ENDED PER S',
    'RUNPODSANDBOX P50 MS',
    'MOST',
  ];
  table(
    [...header, 'RESIDENT MIB PER POD', 'PROPORTIONAL'],
    bursts.map(({ target, pods, startMs, endMs, run, memory, failures }) => {
      const { p50, max } = run.summary('RunPodSandbox');
      const ready = pods - failures.length;
      return [
        String(pods),
        target,
        String(failures.length),
        // All are asked for at the same time: the slowest is when the last one was there.
        ((1000 * ready) / max).toFixed(2),
        ((1000 * ready) / startMs).toFixed(2),
        ((1000 * ready) / endMs).toFixed(2),
        ms(p50),
        ms(max),
        mebibytes(mean(memory.map(({ resident }) => resident))),
        mebibytes(mean(memory.map(({ proportional }) => proportional))),
      ];
    }),
  );
  for (const { target, pods, failures } of bursts) {
    const [first] = failures;
    if (first === undefined) continue;
    process.exitCode = 1;
    say(`✘ ${target}: ${failures.length} of ${pods} pods failed, the first because of: ${first}`);
  }
}

const OPTIONS = {
  endpoint: { type: 'string' },
  image: { type: 'string', default: PEER_IMAGE },
  peer: { type: 'string' },
  'peer-image': { type: 'string', default: PEER_IMAGE },
  rounds: { type: 'string', default: '5' },
  execs: { type: 'string', default: '5' },
  parallel: { type: 'string', default: '1,5' },
  pool: { type: 'string' },
  cold: { type: 'boolean', default: false },
  json: { type: 'string' },
  'write-images': { type: 'string' },
  help: { type: 'boolean', default: false },
} as const;

async function main(interrupted: AbortSignal): Promise<void> {
  const { values } = parseArgs({ options: OPTIONS });
  if (values.help) return say(USAGE);
  if (values['write-images'] !== undefined) return await writeImages(values['write-images']);
  const rounds = count('rounds', values.rounds);
  const execs = count('execs', values.execs);
  const pool = values.pool === undefined ? 0 : count('pool', values.pool);
  const parallel = counts('parallel', values.parallel);
  const where = environment();
  await using stack = new AsyncDisposableStack();
  const targets: Target[] = [];
  if (values.peer !== undefined) {
    targets.push(stack.use(await runningRuntime('peer', socketPath(values.peer), values['peer-image'])));
  }
  targets.unshift(
    stack.use(
      values.endpoint === undefined
        ? await ownDaemon(values.cold, pool)
        : await runningRuntime('endpoint', socketPath(values.endpoint), values.image),
    ),
  );
  for (const { name, version } of targets) say(`${name}: ${version}`);
  say();
  const samples = await oneAtATime(targets, rounds, execs, interrupted);
  printCalls(samples);
  const bursts: Burst[] = [];
  for (const pods of parallel) {
    for (const target of targets) {
      bursts.push(await burst(target, pods));
      interrupted.throwIfAborted();
    }
  }
  printBursts(bursts);
  await finish(
    {
      bench: 'pods',
      environment: where(),
      targets: targets.map(({ name, version }) => ({ name, version })),
      calls: Object.fromEntries([...samples].map(([{ name }, each]) => [name, each.summaries()])),
      bursts: bursts.map((each) => ({ ...each, run: each.run.summaries() })),
    },
    values.json,
  );
}

await runBench(main);
