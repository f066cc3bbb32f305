/**
 * A provider whose machines are records in memory: what the contract asks for, at once and for nothing. For tests of all
 * that stands above providers, and to read as the smallest example of one.
 */
import { createHash } from 'node:crypto';
import { InfraletError } from '../../src/base/errors.ts';
import { type InstanceId, parseInstanceId } from '../../src/base/ids.ts';
import type {
  Check,
  Cloning,
  DescribeQuery,
  Fault,
  Instance,
  LaunchRequest,
  LaunchResult,
  MachineShape,
  PodLink,
  Power,
  Provider,
  ProviderContext,
  TemplateInfo,
} from '../../src/cloud/contract.ts';
import { eachLaunch } from '../../src/cloud/contract-batch.ts';
import type { FakeConfig } from './config.ts';
import { FakeError, type FaultPlan } from './faults.ts';

interface Machine {
  readonly instance: Instance;
  /** What it was made with. */
  readonly most: MachineShape;
  readonly console: string;
}

export class FakeProvider implements Provider {
  readonly name = 'fake';
  readonly #config: FakeConfig;
  readonly #context: ProviderContext;
  readonly #faults: FaultPlan;
  readonly #machines = new Map<InstanceId, Machine>();

  /** By shape: the fake cloud clones what was prepared in exactly that shape. */
  readonly #templates = new Map<string, TemplateInfo>();

  readonly clone: Cloning = {
    prepare: async (shape, signal) => {
      await this.#call('prepare', signal);
      const id = templateId(shape);
      const since = this.#context.clock.now();
      const made: TemplateInfo = { id, shape, state: 'ready', since, memoryBytes: 1, diskBytes: 1, clones: 0 };
      this.#templates.set(id, this.#templates.get(id) ?? made);
      return this.#counted(this.#templates.get(id) ?? made);
    },
    list: async (signal) => {
      signal.throwIfAborted();
      return [...this.#templates.values()].map((template) => this.#counted(template));
    },
    remove: async (id, signal) => {
      signal.throwIfAborted();
      this.#templates.delete(id);
    },
  };

  readonly power: Power = {
    suspend: async (ids, signal) => await this.#toPower(ids, 'suspended', signal),
    resume: async (ids, signal) => await this.#toPower(ids, 'running', signal),
  };

  readonly directPods: boolean;
  #made = 0;

  constructor(config: FakeConfig, context: ProviderContext, faults: FaultPlan) {
    this.#config = config;
    this.directPods = config.directPods;
    this.#context = context;
    this.#faults = faults;
  }

  async launch(batch: readonly LaunchRequest[], signal: AbortSignal): Promise<readonly LaunchResult[]> {
    return await eachLaunch(batch, async (request) => await this.#launchOne(request, signal));
  }

  async describe(query: DescribeQuery, signal: AbortSignal): Promise<readonly Instance[]> {
    await this.#call('describe', signal);
    const all = [...this.#machines.values()].map(({ instance }) => instance);
    if (query.by === 'ids') return all.filter(({ id }) => query.ids.includes(id));
    return all.filter(({ tags }) => Object.entries(query.tags).every(([key, value]) => tags[key] === value));
  }

  async terminate(ids: readonly InstanceId[], signal: AbortSignal): Promise<void> {
    await this.#call('terminate', signal);
    for (const id of ids) this.#machines.delete(id);
  }

  classify(error: unknown): Fault {
    const { message, code } = InfraletError.from(error);
    if (error instanceof FakeError) return { kind: error.kind, message };
    return { kind: code === 'INVALID_ARGUMENT' ? 'invalid' : 'transient', message };
  }

  async console(id: InstanceId, maxBytes: number, signal: AbortSignal): Promise<string> {
    await this.#call('console', signal);
    return this.#machines.get(id)?.console.slice(-maxBytes) ?? '';
  }

  async resize(id: InstanceId, shape: MachineShape, signal: AbortSignal): Promise<void> {
    await this.#call('resize', signal);
    const machine = this.#machines.get(id);
    if (!machine) throw new FakeError('terminal', `there is no machine ${id}`);
    const { cpuMillis, memoryBytes, diskBytes } = machine.most;
    if (shape.cpuMillis > cpuMillis || shape.memoryBytes > memoryBytes || shape.diskBytes > diskBytes) {
      throw new FakeError('unsupported', `machine ${id} was made smaller than that`);
    }
    this.#machines.set(id, { ...machine, instance: { ...machine.instance, shape: { ...shape } } });
  }

  hourlyPrice({ cpuMillis }: MachineShape): number | undefined {
    const { hourlyPrice } = this.#config;
    return hourlyPrice === undefined ? undefined : (hourlyPrice * cpuMillis) / 1000;
  }

  async doctor(signal: AbortSignal): Promise<readonly Check[]> {
    signal.throwIfAborted();
    return [{ name: 'fake', ok: true, detail: 'machines are records in memory; nothing runs in them' }];
  }

  /** Ends a machine the way a crash would; for tests. */
  crash(id: InstanceId, reason: string): void {
    const machine = this.#machines.get(id);
    if (!machine) return;
    this.#machines.set(id, { ...machine, instance: { ...machine.instance, state: 'stopped', reason } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#machines.clear();
  }

  async #toPower(ids: readonly InstanceId[], state: 'running' | 'suspended', signal: AbortSignal): Promise<void> {
    await this.#call('power', signal);
    for (const id of ids) {
      const machine = this.#machines.get(id);
      if (!machine || machine.instance.state === 'stopped') throw new FakeError('terminal', `machine ${id} has ended`);
      this.#machines.set(id, { ...machine, instance: { ...machine.instance, state } });
    }
  }

  async #launchOne(request: LaunchRequest, signal: AbortSignal): Promise<Instance> {
    await this.#call('launch', signal);
    const id = parseInstanceId(`fake-${createHash('sha256').update(request.token).digest('hex').slice(0, 12)}`);
    const existing = this.#machines.get(id);
    if (existing) return existing.instance;
    if (this.#machines.size >= this.#config.capacity) throw new FakeError('no-capacity', 'all fake machines are taken');
    if (request.start === 'clone' && !this.#templates.has(templateId(request.shape))) {
      throw new FakeError('no-template', 'no template was prepared for machines of this shape');
    }
    const instance: Instance = {
      id,
      token: request.token,
      tags: { ...request.tags },
      state: 'running',
      reason: '',
      launchedAt: this.#context.clock.now(),
      shape: { ...request.shape },
      agent: { host: '127.0.0.1', port: 1 },
      podLink: this.#podLink(),
      start: request.start ?? 'boot',
    };
    const console = `fake machine ${id} has started\n`;
    this.#machines.set(id, { instance, most: instance.shape, console });
    return instance;
  }

  #podLink(): PodLink {
    if (!this.directPods) return { kind: 'tap', device: 'fake' };
    this.#made += 1;
    const podAddress = `198.18.${(this.#made >> 8) & 255}.${this.#made & 255}`;
    return { kind: 'direct', address: '127.0.0.1', podAddress };
  }

  #counted(template: TemplateInfo): TemplateInfo {
    const clones = [...this.#machines.values()].filter(
      ({ instance }) => instance.start === 'clone' && templateId(instance.shape) === template.id,
    );
    return { ...template, clones: clones.length };
  }

  /** What every call does first: take its time, and fail when a test says so. */
  async #call(name: FaultPlan['calls'][number]['call'], signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#config.delay > 0) await this.#context.clock.sleep(this.#config.delay, signal);
    this.#faults.raise(name);
  }
}

function templateId(shape: MachineShape): string {
  return `fake-${shape.cpuMillis}-${shape.memoryBytes}-${shape.diskBytes}`;
}
