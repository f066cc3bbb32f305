/**
 * The planner: from what is wanted and what is known to the steps that can be taken now. Pure; the reconciler runs steps
 * side by side and plans again whenever one has ended. An empty plan means that nothing is left to do.
 */
import type { SandboxRecord } from './record.ts';

/** All there are; steps.ts has one executor for each, or it does not compile. */
export const STEPS = [
  'network.add',
  'network.join',
  'network.remove',
  'machine.launch',
  'machine.resize',
  'machine.suspend',
  'machine.resume',
  'machine.terminate',
  'agent.connect',
  'guest.rehearse',
  'guest.run',
  'guest.stop',
  'ready',
  'settle',
  'forget',
] as const;
export type StepKind = (typeof STEPS)[number];

/** What is known besides the journal; none of it survives a restart. */
export interface Observed {
  /** An enrolled channel to the agent is open. */
  readonly connected: boolean;
  /** The machine must be told of the link to its pod's network before the pod is made in it. @default false */
  readonly linkFirst?: boolean;
  /** The machine brings the pod's address. @default false */
  readonly directPods?: boolean;
  /** A machine in this pool waits suspended. @default false */
  readonly suspends?: boolean;
}

export function plan(record: SandboxRecord, observed: Observed): readonly StepKind[] {
  return isBuilding(record) ? build(record, observed) : tearDown(record, observed);
}

/** Whether the sandbox is on its way to ready, or stays it; otherwise it is being taken down. */
export function isBuilding(record: SandboxRecord): boolean {
  return record.wanted === 'ready' && record.state !== 'failed';
}

function build(record: SandboxRecord, observed: Observed): readonly StepKind[] {
  const steps: StepKind[] = [];
  const launched = record.machine === 'launched';
  // A machine in a pool gets its network with its pod.
  if (record.pool !== '') return launched ? wait(record, observed) : ['machine.launch'];
  const on = launched && record.power === 'on';
  const connected = on && observed.connected;
  const added = record.network === 'added';
  // Network and machine do not need each other until they are joined, and each takes a while; unless one brings the other.
  if (!added && (on || observed.directPods !== true)) steps.push('network.add');
  if (!launched) steps.push('machine.launch');
  if (launched && !on) steps.push('machine.resume');
  if (on && record.resize) steps.push('machine.resize');
  if (on && added && !record.joined) steps.push('network.join');
  if (on && !connected) steps.push('agent.connect');
  const reachable = added && (record.joined || observed.linkFirst !== true);
  if (connected && reachable && record.guestSandboxId === '') steps.push('guest.run');
  const complete = record.joined && record.guestSandboxId !== '' && !record.resize;
  if (connected && complete && record.state !== 'ready') steps.push('ready');
  return steps;
}

/** A machine that is up and has no pod yet: connected, so that it has enrolled and rehearsed, and then perhaps suspended. */
function wait({ power, rehearsed }: SandboxRecord, { connected, suspends = false }: Observed): readonly StepKind[] {
  if (power === 'suspending') return ['machine.suspend'];
  if (power === 'suspended') return [];
  if (!connected) return ['agent.connect'];
  if (!rehearsed) return ['guest.rehearse'];
  return suspends ? ['machine.suspend'] : [];
}

function tearDown(record: SandboxRecord, { connected }: Observed): readonly StepKind[] {
  // Containers end in good order first: their last words and exit codes come over the channel.
  if (connected && record.guestSandboxId !== '' && !record.guestStopped) return ['guest.stop'];
  if (record.machine === 'launching' || record.machine === 'launched') return ['machine.terminate'];
  // The address goes back only when nothing can use it any more.
  if (record.network === 'adding' || record.network === 'added') return ['network.remove'];
  if (record.wanted === 'removed') return ['forget'];
  if (record.state !== 'stopped' && record.state !== 'failed') return ['settle'];
  return [];
}
