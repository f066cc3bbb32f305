/** Clouds that outlive the daemons: what exists in them, and what they do to the next calls. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ownerTags, type Provider } from '../../src/cloud/contract.ts';
import type { FleetConfig } from '../../src/cloud/fleet-config.ts';
import type { CloudDriver } from '../../src/cloud/kit.ts';
import { LaunchStore } from '../../src/cloud/launch-store.ts';
import { CloudProvider } from '../../src/cloud/provider.ts';
import { nullLogger } from '../../src/telemetry/log.ts';
import type { VirtualClock } from '../support/cloud/virtual-clock.ts';
import { awsParts } from '../support/fake-ec2/open.ts';
import { startFakeEc2 } from '../support/fake-ec2/server.ts';
import { gcpParts } from '../support/fake-gce/open.ts';
import { startFakeGce } from '../support/fake-gce/server.ts';
import type { WorldParts } from '../support/world.ts';
import type { Answer } from './outside.ts';

export const CLOUDS = ['fake', 'ec2', 'gce'] as const;
export type CloudName = (typeof CLOUDS)[number];

/** Calls of a driver that have an effect. */
export type Call = 'launch' | 'terminate' | 'suspend' | 'resume';

export interface Cloud extends AsyncDisposable {
  readonly openProvider: NonNullable<WorldParts['openProvider']>;
  /** Ids of the machines that somebody pays for. */
  machines(): readonly string[];
  /** Machines that were ever made. */
  made(): number;
  inflict(call: Call, answer: Answer, times: number, seed: number): void;
  clear(): void;
  /** What the provider remembers of its launches is gone; for when no daemon runs. */
  loseLaunches(): Promise<void>;
}

interface Setting {
  readonly clock: VirtualClock;
  readonly stateDir: string;
  /** How long a new machine is missing from lists, milliseconds. */
  readonly lagMs: number;
}

/** As in use, but for the machine list, each reading of which costs a test some milliseconds. */
const SETTINGS = { describeEvery: '5s', terminateIdle: '100ms', retryInitial: '500ms' };

export async function openEc2({ clock, stateDir, lagMs }: Setting): Promise<Cloud> {
  const ec2 = await startFakeEc2({ now: () => clock.steady, pendingMs: 2000, lagMs });
  const { driver, config } = awsParts({ endpoint: ec2.endpoint, settings: SETTINGS }, clock);
  const { cloud } = ec2;
  const actions = {
    launch: 'RunInstances',
    terminate: 'TerminateInstances',
    suspend: 'StopInstances',
    resume: 'StartInstances',
  };
  const codes = {
    fails: ['InternalError', 'Unavailable', 'InsufficientInstanceCapacity'],
    lost: ['lost', 'InternalError', 'lost'],
    throttles: ['RequestLimitExceeded'],
  };
  return {
    openProvider: opener({ driver, config, clock, stateDir }),
    machines: () => cloud.alive.map(({ id }) => id),
    made: () => cloud.made,
    inflict: (call, answer, times, seed) => {
      if (answer === 'answers') return;
      const code = codes[answer][seed % codes[answer].length] ?? '';
      const status = answer === 'throttles' ? 503 : 500;
      for (let n = 0; n < times; n += 1) {
        cloud.script.push({ action: actions[call], when: answer === 'lost' ? 'after' : 'before', code, status });
      }
    },
    loseLaunches: () => loseLaunches(stateDir),
    clear: () => {
      cloud.script.splice(0);
      // As EC2 forgets them after an hour; lists of thousands would only take time.
      for (const { id, ended } of cloud.instances.values()) if (ended) cloud.instances.delete(id);
    },
    [Symbol.asyncDispose]: async () => {
      await driver[Symbol.asyncDispose]();
      await ec2[Symbol.asyncDispose]();
    },
  };
}

export async function openGce({ clock, stateDir, lagMs }: Setting): Promise<Cloud> {
  const gce = await startFakeGce({ now: () => clock.steady, lagMs });
  const { driver, config } = gcpParts({ endpoint: gce.endpoint, settings: SETTINGS });
  const matches = {
    launch: /^POST zones\/[^/]+\/instances$/,
    terminate: /^DELETE zones\/[^/]+\/instances/,
    suspend: /\/suspend$/,
    resume: /\/resume$/,
  };
  return {
    openProvider: opener({ driver, config, clock, stateDir }),
    machines: () => [...gce.instances.keys()],
    made: () => gce.made(),
    inflict: (call, answer, times, seed) => {
      if (answer === 'answers') return;
      const reasons = {
        fails: { status: seed === 1 ? 500 : 503, reason: 'backendError' },
        lost: { status: 503, reason: seed === 1 ? 'backendError' : 'lost' },
        throttles: { status: 403, reason: 'rateLimitExceeded' },
      };
      for (let n = 0; n < times; n += 1) {
        gce.script.push({ match: matches[call], when: answer === 'lost' ? 'after' : 'before', ...reasons[answer] });
      }
    },
    loseLaunches: () => loseLaunches(stateDir),
    clear: () => {
      gce.script.splice(0);
      gce.calls.splice(0);
    },
    [Symbol.asyncDispose]: async () => {
      await driver[Symbol.asyncDispose]();
      await gce[Symbol.asyncDispose]();
    },
  };
}

async function loseLaunches(stateDir: string): Promise<void> {
  for (const suffix of ['', '-wal', '-shm']) await rm(join(stateDir, `launches.db${suffix}`), { force: true });
}

/** One driver for all daemons: a connection, which a dead daemon does not use any more. */
function opener(parts: {
  readonly driver: CloudDriver;
  readonly config: FleetConfig;
  readonly clock: VirtualClock;
  readonly stateDir: string;
}): Cloud['openProvider'] {
  const { clock, driver } = parts;
  let catalogue: ReturnType<CloudDriver['catalogue']> | undefined;
  const { power, leftovers } = driver;
  const forever = new Promise<never>(() => undefined);
  return (killSwitch, daemonClock): Provider => {
    // What only looks does nothing to the outside; of a dead daemon it does not even that.
    const look = async <T>(work: () => Promise<T>): Promise<T> =>
      killSwitch.dead ? await forever : await clock.hold(work);
    const held: CloudDriver = {
      ...driver,
      catalogue: async (signal) => await look(() => (catalogue ??= driver.catalogue(signal))),
      list: (tags, signal) => look(() => driver.list(tags, signal)),
      launch: (call, signal) => clock.hold(() => driver.launch(call, signal)),
      terminate: (ids, signal) => clock.hold(() => driver.terminate(ids, signal)),
      console: (id, bytes, signal) => look(() => driver.console(id, bytes, signal)),
      ...(leftovers
        ? {
            leftovers: {
              list: (tags, signal) => look(() => leftovers.list(tags, signal)),
              remove: (leftover, signal) => clock.hold(() => leftovers.remove(leftover, signal)),
            },
          }
        : {}),
      ...(power
        ? {
            power: killSwitch.wrap(
              'power',
              {
                suspend: (ids: readonly string[], signal: AbortSignal) => clock.hold(() => power.suspend(ids, signal)),
                resume: (ids: readonly string[], signal: AbortSignal) => clock.hold(() => power.resume(ids, signal)),
              },
              ['suspend', 'resume'],
            ),
          }
        : {}),
      [Symbol.asyncDispose]: async () => undefined,
    };
    const store = new LaunchStore(join(parts.stateDir, 'launches.db'));
    return new CloudProvider({
      driver: killSwitch.wrap('provider', held, ['launch', 'terminate']),
      config: parts.config,
      store: killSwitch.wrap('store', store, ['add', 'begin', 'assign', 'release', 'forgetInstances', 'forget']),
      owner: ownerTags('default', 'node-1'),
      clock: daemonClock,
      log: nullLogger,
    });
  };
}
