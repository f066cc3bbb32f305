/** The real CRI server over a node in memory (see world.ts), which may be started again. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { observeCalls } from '../../src/cri/observe.ts';
import type { NodeRuntime } from '../../src/node-runtime.ts';
import { type CriClient, criClient } from './cri-client.ts';
import { containerRequest, podRequest } from './cri-requests.ts';
import { type MemoryServices, memoryServices } from './cri-services.ts';
import { FINE, serveWorldCri } from './serve-world.ts';
import { IMAGE, type Watched, World } from './world.ts';

export class WorldCri implements AsyncDisposable {
  readonly world: World;
  readonly images: MemoryServices = memoryServices();
  readonly #directory: string;
  #daemon: AsyncDisposableStack | undefined;
  #client: CriClient | undefined;
  #runtime: NodeRuntime | undefined;

  readonly #watched: Watched;

  private constructor(world: World, directory: string, watched: Watched) {
    this.world = world;
    this.#watched = watched;
    this.#directory = directory;
  }

  static async start(settings: Readonly<Record<string, object>> = {}, watched: Watched = {}): Promise<WorldCri> {
    const directory = await mkdtemp(join(tmpdir(), 'infralet-world-'));
    const server = { socket: join(directory, 'cri.sock'), drain: '2s' };
    const world = await World.make(directory, {
      server,
      stateDir: directory,
      machine: { heartbeat: '24h' },
      reconciler: { launchConcurrency: 16 },
      ...settings,
    });
    const made = new WorldCri(world, directory, watched);
    await made.boot();
    return made;
  }

  get client(): CriClient {
    if (!this.#client) throw new Error('the daemon is not running');
    return this.#client;
  }

  get runtime(): NodeRuntime {
    if (!this.#runtime) throw new Error('the daemon is not running');
    return this.#runtime;
  }

  async boot(): Promise<void> {
    const { config } = this.world;
    await using stack = new AsyncDisposableStack();
    const runtime = stack.use(this.world.start(undefined, this.#watched));
    stack.use(
      await serveWorldCri(config, runtime, {
        images: this.images.images,
        imageDirectory: join(this.#directory, 'images'),
        observe: observeCalls({ meters: undefined, tracer: undefined, ...this.#watched, traceOf: runtime.traceOf }),
        runtimeStatus: async () => ({
          runtime: { ok: false, reason: 'Test', message: 'a test' },
          network: FINE,
          info: {},
        }),
      }),
    );
    this.#client = stack.use(criClient(config.server.socket));
    this.#runtime = runtime;
    this.#daemon = stack.move();
  }

  /** Ends the daemon in good order; machines and journal stay. */
  async shutDown(): Promise<void> {
    await this.#daemon?.disposeAsync();
    this.#daemon = undefined;
    this.#client = undefined;
  }

  async pod(name: string, labels: Readonly<Record<string, string>> = {}): Promise<string> {
    const config = podRequest({ metadata: { name, uid: `uid-${name}`, namespace: 'default', attempt: 0 }, labels });
    return (await this.client.RunPodSandbox({ config })).podSandboxId;
  }

  /** A container that was created, and started unless told otherwise. */
  async container(podSandboxId: string, name: string, labels: Readonly<Record<string, string>> = {}, start = true) {
    const config = containerRequest({ metadata: { name, attempt: 0 }, labels, image: { image: IMAGE } });
    const { containerId } = await this.client.CreateContainer({ podSandboxId, config });
    if (start) await this.client.StartContainer({ containerId });
    return containerId;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutDown();
    await this.world.provider[Symbol.asyncDispose]();
    await rm(this.#directory, { recursive: true, force: true });
  }
}
