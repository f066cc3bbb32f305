/** What else happens to nodes, with what must become of a pod that runs; the page's second table. */
import type { Incident, Scene } from './site.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

export interface ExpectedIncident extends Incident {
  readonly outcome: 'goes on' | 'made anew';
  /** Why it comes to that. */
  readonly because: string;
}

export interface IncidentResult {
  readonly name: string;
  readonly outcome: string;
}

async function cut({ guests, sandbox, clock, signal }: Scene, ms: number): Promise<void> {
  const guest = guests.guests.get(sandbox);
  if (!guest) throw new Error('the pod has no machine');
  guest.unreachable = true;
  await clock.sleep(ms, signal);
  guest.unreachable = false;
  await clock.sleep(MINUTE, signal);
}

async function jump({ clock, signal }: Scene, ms: number): Promise<void> {
  clock.jump(ms);
  // Long enough for every loop that looks at the clock.
  await clock.sleep(5 * MINUTE, signal);
}

export const INCIDENTS: readonly ExpectedIncident[] = [
  {
    name: 'the daemon is killed',
    outcome: 'goes on',
    because: 'the journal knows it, and its agent proves itself by its certificate',
    strike: ({ crash }) => crash(),
  },
  {
    name: 'the journal is lost',
    outcome: 'goes on',
    because: 'a copy of each ready pod is kept beside it (`<stateDir>/pods`), and the machine proves itself',
    strike: ({ crash }) => crash('journal'),
  },
  {
    name: 'the journal and what the provider knows of its launches are lost',
    outcome: 'goes on',
    because: 'machines carry their owner in their tags, or belong to a kept pod by its record',
    strike: ({ crash }) => crash('all'),
  },
  {
    name: 'the agent is killed',
    outcome: 'goes on',
    because: 'it is started again with its key, and containers do not hang on it',
    strike: async ({ guests, sandbox, clock, signal }) => {
      const guest = guests.guests.get(sandbox);
      await Promise.all([...(guest?.channels ?? [])].map((channel) => channel[Symbol.asyncDispose]()));
      await clock.sleep(MINUTE, signal);
    },
  },
  {
    name: 'the machine reboots',
    outcome: 'made anew',
    because: 'its identity was in memory only; it cannot enrol twice, so it is ended and the kubelet asks again',
    strike: async ({ guests, sandbox, clock, signal }) => {
      guests.disconnect(sandbox);
      await clock.sleep(MINUTE, signal);
    },
  },
  {
    name: 'the network to the machine is cut for 10 s',
    outcome: 'goes on',
    because: 'fewer than five heartbeats are missed',
    strike: (scene) => cut(scene, 10_000),
  },
  {
    name: 'the network to the machine is cut for 1 min',
    outcome: 'goes on',
    because: 'the channel is made again within `machine.goneAfter` (60 s from its loss)',
    strike: (scene) => cut(scene, MINUTE),
  },
  {
    name: 'the network to the machine is cut for 2 min',
    outcome: 'made anew',
    because: 'after `machine.goneAfter` the pod is NotReady and its machine is ended',
    strike: (scene) => cut(scene, 2 * MINUTE),
  },
  {
    name: 'the network to the machine is cut for 1 h',
    outcome: 'made anew',
    because: 'as for 2 min; where the node cannot end it, its lease (`machine.lease`, 15 min) does',
    strike: (scene) => cut(scene, HOUR),
  },
  ...[HOUR, -HOUR, DAY, -DAY].map(
    (ms): ExpectedIncident => ({
      name: `the node’s clock jumps ${ms > 0 ? 'forward' : 'back'} by ${Math.abs(ms) === HOUR ? '1 h' : '1 day'}`,
      outcome: 'goes on',
      because:
        'what is waited for is counted, not read off the clock; what is remembered from the future counts as old',
      strike: (scene) => jump(scene, ms),
    }),
  ),
];
