/**
 * npm run bench: one pod from nothing to its first line of log, in a machine that boots, or with --clones in one cloned from a
 * template. Own daemon, state directory and bridge; all gone at the end.
 */
import { parseArgs } from 'node:util';
import { until } from '../../src/base/time.ts';
import { parseSandboxInfo } from '../../src/cli/sandbox-info.ts';
import { loadConfig } from '../../src/config/load.ts';
import type { TestNode } from '../support/node.ts';
import { TestPod } from '../support/pods.ts';
import { count } from './arguments.ts';
import { agentResident, readMachine } from './machines.ts';
import { cgroupPeak, memoryOf, peakResident, withArgument } from './process-memory.ts';
import { environment, finish, mebibytes, ms, runBench, say, table } from './report.ts';
import { median, Samples } from './stats.ts';
import { ownNode } from './target.ts';

const USAGE = 'usage: npm run bench -- [--clones] [--repeat N] [--json FILE]';

/** Time for a pod as a whole on a slow host. */
const POD_MS = 300_000;

interface Figures {
  /** Milliseconds since RunPodSandbox was called, by phase. */
  readonly phases: Samples;
  /** Milliseconds that single calls took. */
  readonly calls: Samples;
  /** Bytes. */
  readonly memory: Samples;
}

async function coldPod(node: TestNode, figures: Figures, interrupted: AbortSignal): Promise<void> {
  const { phases, calls, memory } = figures;
  const called = performance.now();
  const since = (): number => performance.now() - called;
  const pod = await calls.time('RunPodSandbox', () => TestPod.run(node));
  interrupted.throwIfAborted();
  const container = await calls.time('CreateContainer', () => pod.create('echo first; sleep 1000'));
  const created = since();
  await calls.time('StartContainer', () =>
    node.cri.StartContainer({ containerId: container.id }, { timeoutMs: POD_MS }),
  );
  await until(async () => ((await container.logLines()).length > 0 ? true : undefined), {
    everyMs: 2,
    signal: AbortSignal.timeout(POD_MS),
  });
  const logged = since();
  await calls.time('ExecSync true', () => container.exec('true'));
  const limits = { signal: AbortSignal.timeout(10_000), timeoutMs: 10_000 };
  const info = parseSandboxInfo(await node.admin.describe(pod.id, limits));
  for (const { phase, ms } of info.timeline) phases.add(phase, ms);
  phases.add('container created', created);
  phases.add('first line of log', logged);

  const machine = await readMachine(node.stateDir, info.instanceId);
  const now = await memoryOf(machine.process.pid);
  memory.add('machine, proportional, container running', now.proportional);
  memory.add('machine, most ever resident', await peakResident(machine.process.pid));
  const peak = await cgroupPeak(machine.cgroup);
  if (peak !== undefined) memory.add('machine, peak of its cgroup', peak);
  memory.add('agent, resident in the machine', await agentResident(await loadConfig(node.configFile), machine));
  const [daemon = 0] = await withArgument(node.configFile);
  memory.add('daemon, resident', (await memoryOf(daemon)).resident);
  memory.add('daemon, most ever resident', await peakResident(daemon));

  await calls.time('StopPodSandbox', () => pod.stop());
  await calls.time('RemovePodSandbox', () => pod.remove());
}

function print({ phases, calls, memory }: Figures): void {
  const row = (samples: Samples, name: string, format: (value: number) => string): string[] => {
    const values = samples.of(name);
    return [name, format(median(values)), format(Math.min(...values)), format(Math.max(...values))];
  };
  const ordered = [...phases.names].sort((a, b) => median(phases.of(a)) - median(phases.of(b)));
  table(
    ['PHASE', 'MEDIAN MS', 'LEAST', 'MOST'],
    ordered.map((name) => row(phases, name, ms)),
  );
  table(
    ['CALL', 'MEDIAN MS', 'LEAST', 'MOST'],
    calls.names.map((name) => row(calls, name, ms)),
  );
  table(
    ['MEMORY', 'MEDIAN MIB', 'LEAST', 'MOST'],
    memory.names.map((name) => row(memory, name, mebibytes)),
  );
}

async function main(interrupted: AbortSignal): Promise<void> {
  const { values } = parseArgs({
    options: {
      clones: { type: 'boolean', default: false },
      repeat: { type: 'string', default: '3' },
      json: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return say(USAGE);
  const repeat = count('repeat', values.repeat);
  const where = environment();
  const figures: Figures = { phases: new Samples(), calls: new Samples(), memory: new Samples() };
  await using node = await ownNode(!values.clones);
  for (let round = 1; round <= repeat; round += 1) {
    await coldPod(node, figures, interrupted);
    interrupted.throwIfAborted();
    say(`pod ${round} of ${repeat}: ready after ${ms(figures.phases.of('ready').at(-1) ?? Number.NaN)} ms`);
  }
  say();
  print(figures);
  const { phases, calls, memory } = figures;
  await finish(
    {
      bench: values.clones ? 'clone' : 'cold',
      environment: where(),
      repeat,
      phases: phases.summaries(),
      calls: calls.summaries(),
      memory: memory.summaries(),
    },
    values.json,
  );
}

await runBench(main);
