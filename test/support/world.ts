/** A node in memory: the real runtime and a real journal file over machines, networks and images that are records. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Digest, parseDigest } from '../../src/base/ids.ts';
import { type Clock, systemClock } from '../../src/base/time.ts';
import type { Provider } from '../../src/cloud/contract.ts';
import { loadProvider } from '../../src/cloud/loader.ts';
import { type Config, configSchema } from '../../src/config/schema.ts';
import type { AgentChannel, ChannelDialer } from '../../src/guest/channel.ts';
import type { ImageRecord, ImageService } from '../../src/image/service.ts';
import { type NodeRuntime, type NodeRuntimeOptions, startNodeRuntime } from '../../src/node-runtime.ts';
import { loadCri } from '../../src/rpc/load.ts';
import { Journal } from '../../src/state/journal.ts';
import { PodFiles } from '../../src/state/pod-files.ts';
import { nullLogger } from '../../src/telemetry/log.ts';
import { FakeGuests, FakeNetwork } from './fake-guest.ts';
import { KillSwitch } from './kill-switch.ts';

const cri = loadCri();
export const IMAGE: Digest = parseDigest(`sha256:${'a'.repeat(64)}`);

const record: ImageRecord = {
  id: IMAGE,
  manifest: IMAGE,
  repoTags: ['example.test/app:1'],
  repoDigests: [`example.test/app@${IMAGE}`],
  size: 1,
  uid: undefined,
  username: '',
  pinned: false,
  annotations: {},
};

export function images(): ImageService {
  return {
    pull: async () => record,
    load: async () => [record],
    find: (reference) => (reference === IMAGE || reference === record.repoTags[0] ? record : undefined),
    list: () => [record],
    remove: async () => undefined,
    configuration: async () => ({}),
    usage: async () => ({ mountpoint: '/', usedBytes: 0, inodesUsed: 0 }),
    grant: () => undefined,
    revoke: () => undefined,
    // The fake guest takes the reference for the id of what it pulled.
    guestReference: ({ id }) => id,
    serveGuest: (_sandbox, socket) => socket.destroy(),
  };
}

function withPower(provider: Provider, killSwitch: KillSwitch): Provider {
  const { power } = provider;
  if (!power) return provider;
  const counted: Provider = Object.create(provider);
  return Object.assign(counted, { power: killSwitch.wrap('power', power, ['suspend', 'resume']) });
}

const JOURNAL_WRITES = [
  'putSandbox',
  'replaceSandbox',
  'putContainer',
  'putLog',
  'deleteSandbox',
  'deleteContainer',
  'addStep',
] as const;

/** What looks at it from outside. */
export type Watched = Partial<Pick<NodeRuntimeOptions, 'meters' | 'tracer' | 'log'>>;

/** What a test has instead of the usual parts. */
export interface WorldParts {
  readonly clock?: Clock;
  /** Each daemon's own provider; closed with it. Default: one fake provider that outlives the daemons. */
  readonly openProvider?: (killSwitch: KillSwitch, clock: Clock) => Provider;
}

/** What outlives a daemon: machines, networks, the journal's file. */
export class World {
  readonly guests: FakeGuests;
  readonly network = new FakeNetwork();
  readonly provider: Provider;
  config: Config;
  readonly podFiles: PodFiles;
  readonly #directory: string;
  readonly #parts: WorldParts;

  private constructor(provider: Provider, directory: string, config: Config, parts: WorldParts) {
    this.provider = provider;
    this.#parts = parts;
    this.guests = new FakeGuests(parts.clock);
    this.#directory = directory;
    this.podFiles = new PodFiles(join(directory, 'pods'));
    this.config = config;
  }

  static async make(directory: string, settings: object = {}, parts: WorldParts = {}): Promise<World> {
    const config = configSchema.parse(settings);
    const { clock = systemClock } = parts;
    const module = await loadProvider('fake');
    const provider = await module.create(
      module.parseConfig(config.providers['fake'] ?? {}),
      { log: nullLogger, clock, stateDir: directory, guestImageDir: directory, owner: {} },
      new AbortController().signal,
    );
    return new World(provider, directory, config, parts);
  }

  /** The journal's file is gone; for when no daemon runs. */
  async loseJournal(): Promise<void> {
    for (const suffix of ['', '-wal', '-shm']) await rm(join(this.#directory, `journal.db${suffix}`), { force: true });
  }

  /** Another configuration, from the next start on. */
  configure(settings: object): void {
    this.config = configSchema.parse(settings);
  }

  /** Starts a daemon's heart; with a kill switch, its effects count. */
  start(
    killSwitch = new KillSwitch(Number.POSITIVE_INFINITY, 'after'),
    watched: Watched = {},
  ): NodeRuntime & { readonly journal: Journal } {
    const journal = new Journal(join(this.#directory, 'journal.db'));
    const { guests } = this;
    const clock = this.#parts.clock ? killSwitch.clock(this.#parts.clock) : systemClock;
    const channel = (made: AgentChannel): AgentChannel =>
      killSwitch.wrap('guest', made, ['cri', 'putFiles', 'makeLog', 'trimLog', 'removeLog'], (method, [rpc]) =>
        method === 'cri' ? String(rpc) : method,
      );
    const opened = this.#parts.openProvider?.(killSwitch, clock);
    const dialer: ChannelDialer = {
      newToken: () => guests.newToken(),
      userData: (token) => guests.userData(token),
      enrol: async (address, identity) => channel(await guests.enrol(address, identity)),
      connect: async (address, identity) => channel(await guests.connect(address, identity)),
    };
    using untilStarted = new DisposableStack();
    untilStarted.use(journal);
    const runtime = startNodeRuntime({
      config: this.config,
      node: { hostname: 'node-1', dns: { servers: [], searches: [], options: [] } },
      cri,
      journal: killSwitch.wrap('journal', journal, JOURNAL_WRITES, (method, [, record]) =>
        method === 'putSandbox' ? String((record as { readonly state?: string }).state) : method,
      ),
      provider:
        opened ?? withPower(killSwitch.wrap('provider', this.provider, ['launch', 'terminate', 'resize']), killSwitch),
      network: killSwitch.wrap('network', this.network, ['add', 'join', 'remove']),
      dialer: killSwitch.wrap('dialer', dialer, ['enrol', 'connect']),
      images: images(),
      podFiles: this.podFiles,
      guestImage: async () => this.guests.image,
      clock,
      log: nullLogger,
      ...watched,
    });
    untilStarted.move();
    return {
      ...runtime,
      journal,
      [Symbol.asyncDispose]: async () => {
        await runtime[Symbol.asyncDispose]();
        await opened?.[Symbol.asyncDispose]();
        journal[Symbol.dispose]();
      },
    };
  }
}
