/**
 * Machines of a test cloud as processes: each is the agent alone, which asks a metadata service of its own who it is. It takes a
 * second where a virtual machine takes half a minute; there are no containers in it.
 */
import type { AgentWorld, TestMachine } from '../agent/machine.ts';
import { type CloudKind, type MetadataService, startMetadataService } from '../metadata-service.ts';
import type { Hardware, LaunchBackend } from './backend.ts';

/** Of the agent on every cloud. */
const AGENT_PORT = 7443;

interface Process extends AsyncDisposable {
  readonly machine: TestMachine;
  readonly metadata: MetadataService;
}

export class AgentCloud implements LaunchBackend {
  /** For the fake's `network`: on the loopback device, where every address is this host's; another for each test process. */
  readonly network = `127.${20 + 2 * (process.pid % 100)}`;
  readonly #cloud: CloudKind;
  readonly #world: AgentWorld;
  readonly #running = new Map<string, Process>();

  /** `world` ends what still runs. */
  constructor(cloud: CloudKind, world: AgentWorld) {
    this.#cloud = cloud;
    this.#world = world;
  }

  async start({ id, address, userData, spot }: Hardware, onOff: () => void): Promise<void> {
    const known = { id, userData, spot: spot ? { notice: undefined } : undefined };
    const metadata = this.#world.use(await startMetadataService(this.#cloud, () => known));
    const onExit = (): void => {
      if (this.#running.delete(id)) onOff();
    };
    const machine = await this.#world.cloudMachine(metadata.url, [`--listen=${address}:${AGENT_PORT}`], onExit);
    this.#running.set(id, {
      machine,
      metadata,
      [Symbol.asyncDispose]: async () => {
        await machine.kill();
        await metadata[Symbol.asyncDispose]();
      },
    });
  }

  async halt(id: string): Promise<void> {
    const found = this.#running.get(id);
    this.#running.delete(id);
    await found?.[Symbol.asyncDispose]();
  }

  async remove(id: string): Promise<void> {
    await this.halt(id);
  }

  async console(id: string): Promise<string> {
    const lines = this.#running.get(id)?.machine.lines ?? [];
    return lines.map((line) => `${JSON.stringify(line)}\n`).join('');
  }

  /** By machine id: what the metadata service was asked. */
  requests(id: string): readonly string[] {
    return this.#running.get(id)?.metadata.requests ?? [];
  }

  get running(): readonly string[] {
    return [...this.#running.keys()];
  }

  /** The machine dies by itself. */
  async crash(id: string): Promise<void> {
    await this.#running.get(id)?.machine.kill();
  }
}
