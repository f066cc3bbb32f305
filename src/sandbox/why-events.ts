/** The causal order of a sandbox's life: phases from its record, steps with their times from the journal. Pure. */
import type { StepEntry } from '../state/journal.ts';
import type { SandboxRecord } from './record.ts';

export interface WhyEvent {
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** Milliseconds since the pod was asked for. */
  readonly ms: number;
  /** `asked`: by the kubelet; `reached`: a phase; `step`: something that was done; `note`: what happened on its way. */
  readonly kind: 'asked' | 'reached' | 'step' | 'note';
  /** Of a step: `open` has no end yet, `interrupted` never got one, since the daemon ended. */
  readonly outcome: 'done' | 'failed' | 'open' | 'interrupted' | '';
  /** Of a step that has ended, or how long an open one has taken so far; milliseconds. */
  readonly tookMs: number | undefined;
  /** Name of the phase or step. */
  readonly name: string;
  readonly text: string;
}

/** What the kubelet or nobody asked for, in the timeline of the record. */
const WISHES: Readonly<Record<string, string>> = {
  asked: 'the kubelet asks for the pod (RunPodSandbox)',
  'stop-asked': 'the kubelet asks to stop the pod (StopPodSandbox)',
  'remove-asked': 'the kubelet asks to remove the pod (RemovePodSandbox)',
};

/** Phases that no step tells of. */
const PHASES: Readonly<Record<string, string>> = {
  turn: 'its turn to start has come',
  claimed: 'it gets a machine that waited in a pool',
  enrolled: 'the machine has proved who it is',
  ready: 'the pod is ready',
  interrupted: 'the cloud has announced that it takes the machine back',
  failed: 'the sandbox has failed',
  abandoned: 'nobody asks for the pod any more; it is taken down',
};

export function whyEvents(
  record: SandboxRecord,
  steps: readonly StepEntry[],
  now: number,
  ended: boolean,
): readonly WhyEvent[] {
  const event = (at: number, kind: WhyEvent['kind'], name: string, text: string): WhyEvent => ({
    ...{ at, ms: Math.round(at - record.createdAt), kind, outcome: '', tookMs: undefined, name, text },
  });
  const marks = Object.entries(record.timeline).flatMap(([phase, at]): readonly WhyEvent[] => {
    const wish = WISHES[phase];
    if (wish !== undefined) return [event(at, 'asked', phase, wish)];
    const reached = PHASES[phase];
    if (reached === undefined) return [];
    return [event(at, 'reached', phase, phase === 'failed' ? `${reached}: ${record.reason}` : reached)];
  });
  const taken: WhyEvent[] = [];
  // By step: where its newest try stands in `taken`.
  const open = new Map<string, number>();
  const end = (step: string, at: number, outcome: 'done' | 'failed' | 'interrupted', text: string): void => {
    const index = open.get(step);
    const begun = index === undefined ? undefined : taken[index];
    open.delete(step);
    if (index === undefined || !begun) {
      // Its beginning has been dropped from a list that grew too long, or it is a step that only tells of its failure.
      taken.push({ ...event(at, 'step', step, text), outcome });
      return;
    }
    const tookMs = outcome === 'interrupted' ? undefined : at - begun.at;
    taken[index] = { ...begun, outcome, text, tookMs };
  };
  for (const { at, step, outcome, detail } of steps) {
    if (outcome === 'note') taken.push(event(at, 'note', step, detail));
    else if (outcome === 'intent') {
      if (open.has(step)) end(step, at, 'interrupted', 'the daemon ended meanwhile; it is done again');
      open.set(step, taken.push({ ...event(at, 'step', step, ''), outcome: 'open', tookMs: now - at }) - 1);
    } else end(step, at, outcome, detail);
  }
  if (ended) {
    for (const step of [...open.keys()]) end(step, now, 'interrupted', '');
  }
  return [...marks, ...taken].toSorted((a, b) => a.at - b.at || rank(a) - rank(b));
}

/** Of what happened in one millisecond, a wish comes before its first step, and a failure after the step that failed. */
function rank({ kind, name }: WhyEvent): number {
  if (kind === 'asked') return 0;
  return name === 'turn' || name === 'claimed' ? 1 : kind === 'reached' ? 3 : 2;
}
