/** As much of a kubelet as crashes need: it lists, and does again what it wants until it is so. */
import type { ContainerId, SandboxId } from '../../src/base/ids.ts';
import type { Clock } from '../../src/base/time.ts';
import type { NodeRuntime } from '../../src/node-runtime.ts';
import { loadCri } from '../../src/rpc/load.ts';
import type { SandboxView } from '../../src/sandbox/service.ts';
import { podConfig } from '../support/sandbox-records.ts';
import { IMAGE } from '../support/world.ts';

/** Between two looks, milliseconds. */
const LOOK_MS = 1000;

const { CreateContainer } = loadCri().RuntimeService.service;

function container(attempt: number) {
  const { config } = CreateContainer.requestDeserialize(
    CreateContainer.requestSerialize({
      config: { metadata: { name: 'app', attempt }, image: { image: IMAGE }, command: ['/app'] },
    }),
  );
  if (!config) throw new Error('no container configuration');
  return config;
}

export class Kubelet {
  readonly uid: string;
  readonly #clock: Clock;
  readonly #signal: AbortSignal;

  constructor(uid: string, clock: Clock, signal: AbortSignal) {
    this.uid = uid;
    this.#clock = clock;
    this.#signal = signal;
  }

  mine({ sandboxes }: NodeRuntime): readonly SandboxView[] {
    return sandboxes.list().filter(({ config }) => config.metadata?.uid === this.uid);
  }

  /** Until the pod has exactly one sandbox that is ready, and in it one container that runs. */
  async run(runtime: NodeRuntime): Promise<SandboxId> {
    return await this.#until(async () => {
      const all = this.mine(runtime);
      for (const { id } of all.filter(({ ready }) => !ready)) {
        await runtime.sandboxes.stop(id, this.#signal);
        await runtime.sandboxes.remove(id, this.#signal);
      }
      const ready = all.filter((each) => each.ready);
      if (ready.length > 1) throw new Error(`${ready.length} sandboxes of one pod are ready`);
      const attempts = all.map(({ config }) => config.metadata?.attempt ?? 0);
      const config = podConfig({
        metadata: { name: this.uid, uid: this.uid, namespace: 'default', attempt: Math.max(-1, ...attempts) + 1 },
      });
      const sandbox = ready[0]?.id ?? (await runtime.sandboxes.run(config, '', this.#signal));
      await this.#contain(runtime, sandbox);
      return runtime.sandboxes.get(sandbox).ready ? sandbox : undefined;
    });
  }

  async #contain({ containers, sandboxes }: NodeRuntime, sandbox: SandboxId): Promise<void> {
    const all = containers.list().filter(({ sandboxId }) => sandboxId === sandbox);
    if (all.filter(({ state }) => state === 'CONTAINER_RUNNING').length === 1) return;
    const created = all.find(({ state }) => state === 'CONTAINER_CREATED');
    const attempt = Math.max(-1, ...all.map((each) => each.config.metadata?.attempt ?? 0)) + 1;
    const { config } = sandboxes.get(sandbox);
    const id = created?.id ?? (await containers.create(sandbox, container(attempt), config, this.#signal));
    await containers.start(id, this.#signal);
  }

  /** Until the pod is gone; in good order, or with what runs in it. */
  async end(runtime: NodeRuntime, orderly: boolean): Promise<void> {
    await this.#until(async () => {
      const all = this.mine(runtime);
      for (const { id } of all) {
        for (const each of orderly ? this.#containers(runtime, id) : []) {
          await runtime.containers.stop(each, 1, this.#signal);
          await runtime.containers.remove(each, this.#signal);
        }
        await runtime.sandboxes.stop(id, this.#signal);
        await runtime.sandboxes.remove(id, this.#signal);
      }
      return this.mine(runtime).length === 0 ? true : undefined;
    });
  }

  #containers({ containers }: NodeRuntime, sandbox: SandboxId): readonly ContainerId[] {
    return containers
      .list()
      .filter(({ sandboxId }) => sandboxId === sandbox)
      .map(({ id }) => id);
  }

  /** What fails is done again, as a kubelet does. */
  async #until<T>(look: () => Promise<T | undefined>): Promise<T> {
    for (;;) {
      this.#signal.throwIfAborted();
      try {
        const found = await look();
        if (found !== undefined) return found;
      } catch {
        this.#signal.throwIfAborted();
      }
      await this.#clock.sleep(LOOK_MS, this.#signal);
    }
  }
}
