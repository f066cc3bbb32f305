/**
 * What EC2 does, as far as a launcher of machines can tell: tokens, partial fills, machines that are pending for a while, lists
 * that lag, capacity by (type, zone, market), ends with reasons. Time is real or the test's; nothing is random.
 */
import { Buffer } from 'node:buffer';
import { furtherAddress, type Hardware, type LaunchBackend } from '../cloud/backend.ts';
import { FakeEbs } from './ebs.ts';

export interface FakeType {
  readonly name: string;
  readonly cpus: number;
  readonly memoryMib: number;
  readonly architecture: 'x86_64' | 'arm64';
  readonly gpus?: { readonly name: string; readonly count: number };
  readonly spotPrice: number;
}

export interface FakeInstance {
  readonly id: string;
  readonly token: string;
  readonly type: string;
  readonly zone: string;
  readonly market: 'spot' | 'on-demand';
  readonly address: string;
  /** Further private addresses of its interface. */
  readonly secondaries: readonly string[];
  readonly launchedAt: number;
  readonly userData: string;
  readonly request: Readonly<Record<string, string>>;
  tags: Record<string, string>;
  /** Since when it is what `ended` or `stopped` say. */
  ended: { readonly at: number; readonly code: string; readonly message: string } | undefined;
  stopped: boolean;
  console: string;
}

export interface FakeVolume {
  readonly id: string;
  readonly zone: string;
  attachment: { readonly instance: string; readonly device: string } | undefined;
  /** How often it is still shown on its way. */
  looks: number;
}

export class Ec2Fault extends Error {
  readonly code: string;
  readonly status: number;
  constructor(code: string, message: string, status = 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

export interface Script {
  readonly action: string;
  /** `after`: the call has its effect, and its answer is lost. */
  readonly when: 'before' | 'after';
  /** `lost`: the connection breaks instead of an answer. */
  readonly code: string;
  readonly status?: number;
  readonly message?: string;
}

export interface FakeCloudOptions {
  readonly now: () => number;
  readonly pendingMs: number;
  /** How long a new machine is missing from lists. */
  readonly lagMs: number;
  readonly types: readonly FakeType[];
  readonly zones: readonly string[];
  readonly backend?: LaunchBackend;
  /** The first half of the machines' addresses. */
  readonly network: string;
}

export interface RunRequest {
  readonly token: string;
  readonly type: string;
  readonly zone: string;
  readonly market: 'spot' | 'on-demand';
  readonly min: number;
  readonly max: number;
  readonly userData: string;
  readonly tags: Readonly<Record<string, string>>;
  /** Secondary private addresses that it asks for. */
  readonly secondaries?: number;
  /** All parameters, for the comparison under one token and for tests to look at. */
  readonly request: Readonly<Record<string, string>>;
}

export class FakeCloud {
  readonly options: FakeCloudOptions;
  readonly ebs = new FakeEbs();
  readonly instances = new Map<string, FakeInstance>();
  readonly volumes = new Map<string, FakeVolume>();
  /** Machines left by "type/zone/market"; absent: no end of them. */
  readonly capacity = new Map<string, number>();
  readonly script: Script[] = [];
  readonly #tokens = new Map<string, { readonly params: string; readonly ids: readonly string[] }>();
  #count = 0;

  constructor(options: FakeCloudOptions) {
    this.options = options;
  }

  /** The next scripted fault for this action, taken out of the script. */
  fault(action: string, when: Script['when']): Ec2Fault | undefined {
    const index = this.script.findIndex((entry) => entry.action === action && entry.when === when);
    const [entry] = index < 0 ? [] : this.script.splice(index, 1);
    return entry && new Ec2Fault(entry.code, entry.message ?? `scripted ${entry.code}`, entry.status ?? 400);
  }

  async run(request: RunRequest): Promise<readonly FakeInstance[]> {
    const params = JSON.stringify(request.request);
    const before = this.#tokens.get(request.token);
    if (before) {
      if (before.params !== params) {
        throw new Ec2Fault('IdempotentParameterMismatch', 'the client token was used with other parameters');
      }
      return before.ids.flatMap((id) => this.instances.get(id) ?? []);
    }
    if (Buffer.from(request.userData, 'base64').length > 16 * 1024) {
      throw new Ec2Fault('InvalidUserData.Malformed', 'User data is limited to 16384 bytes');
    }
    const place = `${request.type}/${request.zone}/${request.market}`;
    const left = this.capacity.get(place) ?? Number.POSITIVE_INFINITY;
    if (left < request.min) {
      // With status 500, as EC2 has it.
      throw new Ec2Fault('InsufficientInstanceCapacity', `no capacity for ${place}`, 500);
    }
    const made = Array.from({ length: Math.min(left, request.max) }, () => this.#make(request));
    this.capacity.set(place, left - made.length);
    this.#tokens.set(request.token, { params, ids: made.map(({ id }) => id) });
    for (const instance of made) await this.#switchOn(instance);
    return made;
  }

  async #switchOn(instance: FakeInstance): Promise<void> {
    await this.options.backend?.start(hardware(instance), () => {
      if (instance.request['InstanceInitiatedShutdownBehavior'] !== 'terminate') instance.stopped = true;
      else void this.end(instance, 'Client.InstanceInitiatedShutdown', 'Instance initiated shutdown');
    });
  }

  async stop(instance: FakeInstance): Promise<void> {
    instance.stopped = true;
    await this.options.backend?.halt(instance.id);
  }

  async start(instance: FakeInstance): Promise<void> {
    if (!instance.stopped) return;
    instance.stopped = false;
    await this.#switchOn(instance);
  }

  async console(instance: FakeInstance): Promise<string> {
    return (await this.options.backend?.console(instance.id)) ?? instance.console;
  }

  #make({ token, type, zone, market, userData, tags, secondaries = 0, request }: RunRequest): FakeInstance {
    this.#count += 1;
    // Ids whose order is not that of their making.
    const id = `i-${((this.#count * 2_654_435_761) % 2 ** 32).toString(16).padStart(17, '0')}`;
    const address = `${this.options.network}.${this.#count >> 8}.${this.#count & 255}`;
    const instance: FakeInstance = {
      id,
      token,
      type,
      zone,
      market,
      address,
      secondaries: Array.from({ length: secondaries }, (_, index) => furtherAddress(address, index + 1)),
      launchedAt: this.options.now(),
      userData,
      request,
      tags: { ...tags },
      ended: undefined,
      stopped: false,
      console: `[    0.000000] fake machine ${id} has started\n`,
    };
    this.instances.set(id, instance);
    return instance;
  }

  /** Machines that were ever made. */
  get made(): number {
    return this.#count;
  }

  get alive(): readonly FakeInstance[] {
    return [...this.instances.values()].filter(({ ended }) => !ended);
  }

  /** Those that a list shows now. */
  get visible(): readonly FakeInstance[] {
    const { now, lagMs } = this.options;
    return [...this.instances.values()].filter(({ launchedAt }) => launchedAt + lagMs <= now());
  }

  state(instance: FakeInstance): string {
    const { now, pendingMs } = this.options;
    if (instance.ended) return 'terminated';
    if (instance.stopped) return 'stopped';
    return instance.launchedAt + pendingMs > now() ? 'pending' : 'running';
  }

  known(ids: readonly string[]): readonly FakeInstance[] {
    return ids.map((id) => {
      const instance = this.instances.get(id);
      if (!instance) throw new Ec2Fault('InvalidInstanceID.NotFound', `The instance ID '${id}' does not exist`);
      return instance;
    });
  }

  async end(instance: FakeInstance, code: string, message: string): Promise<void> {
    if (instance.ended) return;
    instance.ended = { at: this.options.now(), code, message };
    await this.options.backend?.remove(instance.id);
  }
}

function hardware({ id, address, request, userData, market }: FakeInstance): Hardware {
  return {
    ...{ id, address, spot: market === 'spot', userData: Buffer.from(userData, 'base64').toString() },
    image: request['ImageId'] ?? '',
    diskGib: Number(request['BlockDeviceMapping.1.Ebs.VolumeSize']),
  };
}
