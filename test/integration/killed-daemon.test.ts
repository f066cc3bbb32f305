/**
 * The daemon as a process, killed by the kernel where its journal notes a step: the same as the fault matrix does to
 * simulated ones, to see that the simulation is right about processes. The cloud is a fake EC2, whose machines never speak:
 * of a pod's life this is the part in which money is spent.
 */
import { randomUUID } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { until } from '../../src/base/time.ts';
import { subnetOf } from '../support/fake-ec2/actions.ts';
import { type FakeEc2, startFakeEc2 } from '../support/fake-ec2/server.ts';
import type { Moment } from '../support/kill-at.ts';
import { TestNode } from '../support/node.ts';
import { podConfigFor } from '../support/pods.ts';

const stack = new AsyncDisposableStack();
let ec2: FakeEc2;
let node: TestNode;
let killAt: string;
/** What happens when a machine was made and the call is not answered yet. */
let onLaunch: () => Promise<unknown> = async () => undefined;

beforeAll(async () => {
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test');
  const directory = await mkdtemp(join(tmpdir(), 'infralet-killed-'));
  stack.defer(() => rm(directory, { recursive: true }));
  killAt = join(directory, 'kill-at');
  await spare();
  const nothing = async (): Promise<void> => undefined;
  const backend = {
    start: async () => void (await onLaunch()),
    ...{ halt: nothing, remove: nothing, console: async () => '' },
  };
  // Loopback, where nobody answers: whatever this host is connected to, it hears nothing of them.
  ec2 = stack.use(await startFakeEc2({ limits: false, backend, network: '127.20' }));
  const aws = {
    region: 'us-east-1',
    endpoint: ec2.endpoint,
    imageId: 'ami-0123456789abcdef0',
    subnets: ['z-1a', 'z-1b'].map(subnetOf),
    securityGroups: ['sg-0123'],
    ...{ describeEvery: '50ms', terminateIdle: '5ms', retryInitial: '50ms' },
  };
  node = stack.use(await TestNode.start({ killAt, settings: { provider: 'aws', providers: { aws } } }));
});
afterAll(async () => {
  await stack.disposeAsync();
  vi.unstubAllEnvs();
});

const soon = (): AbortSignal => AbortSignal.timeout(20_000);
const strike = (moment: Moment): Promise<void> => writeFile(killAt, JSON.stringify(moment));
const spare = (): Promise<void> => writeFile(killAt, '');
const kubelet = async (call: Promise<unknown>): Promise<void> => void (await call.catch(() => undefined));

async function restart(): Promise<void> {
  await node.killed(soon());
  await spare();
  await node.boot();
}

/** Until there are so many machines, networks and sandboxes, and each sandbox has its machine. */
async function settled(count: number): Promise<readonly Readonly<Record<string, unknown>>[]> {
  let seen = '';
  const look = async () => {
    const all = await node.admin.list({ signal: soon(), timeoutMs: 10_000 });
    const machines = ec2.cloud.alive.map(({ id }) => id);
    const networks = await readdir(join(node.stateDir, 'network'));
    seen = JSON.stringify({ machines, networks, sandboxes: all });
    const own = all.every(({ instanceId }) => machines.includes(String(instanceId)));
    return own && [all, machines, networks].every(({ length }) => length === count) ? all : undefined;
  };
  try {
    return await until(look, { everyMs: 50, signal: soon() });
  } catch (error) {
    throw new Error(`${seen} instead of ${count} of each`, { cause: error });
  }
}

interface Cell {
  readonly name: string;
  readonly wish: 'run' | 'end';
  /** Undefined: while the launch call is under way. */
  readonly moment: Moment | undefined;
}
/** What was done is not on disk yet: the moments at which most is at stake. */
const after = (step: string): Moment => ({ step, outcome: 'done' });
const CELLS: readonly Cell[] = [
  { name: 'after CNI ADD', wish: 'run', moment: after('network.add') },
  { name: 'while EC2 makes the machine', wish: 'run', moment: undefined },
  { name: 'after the launch', wish: 'run', moment: after('machine.launch') },
  { name: 'before the machine is ended', wish: 'end', moment: { step: 'machine.terminate', outcome: 'intent' } },
  { name: 'after its end', wish: 'end', moment: after('machine.terminate') },
  { name: 'after CNI DEL', wish: 'end', moment: after('network.remove') },
];

test.each(CELLS)('kill -9 $name: one machine for the pod that is asked for, none for one that is not', async (cell) => {
  const { moment, wish } = cell;
  const pod = podConfigFor(node, { metadata: { name: 'pod', namespace: 'default', uid: randomUUID(), attempt: 0 } });
  const run = () => kubelet(node.cri.RunPodSandbox({ config: pod }, { timeoutMs: 60_000 }));
  const made = ec2.cloud.made;
  if (wish === 'run') {
    if (moment) await strike(moment);
    else onLaunch = () => node.kill();
    void run();
    await restart();
    onLaunch = async () => undefined;
  }
  void run();
  const [sandbox] = await settled(1);
  const podSandboxId = String(sandbox?.['id']);

  if (wish === 'end' && moment) {
    await strike(moment);
    await kubelet(node.cri.StopPodSandbox({ podSandboxId }, { timeoutMs: 20_000 }));
    await restart();
  }
  await node.cri.StopPodSandbox({ podSandboxId }, { timeoutMs: 20_000 });
  await node.cri.RemovePodSandbox({ podSandboxId }, { timeoutMs: 20_000 });
  await settled(0);
  expect(ec2.cloud.made - made).toBe(1);
});
