/** Finds machines and pod networks that carry this node's name and belong to no sandbox; seen twice before it acts. */
import { errorMessage } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';
import { ownerTags, type Provider, TAGS } from '../cloud/contract.ts';
import type { Config } from '../config/schema.ts';
import type { PodNetwork } from '../network/pod-network.ts';
import type { Logger } from '../telemetry/log.ts';
import type { SandboxStore } from './store.ts';

export interface SweeperDeps {
  readonly config: Config;
  readonly nodeName: string;
  readonly provider: Provider;
  readonly network: PodNetwork;
  readonly store: SandboxStore;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Sweeper implements AsyncDisposable {
  readonly #deps: SweeperDeps;
  readonly #stop = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  /** What nobody owned at the last look. */
  #suspects: ReadonlySet<string> = new Set();

  constructor(deps: SweeperDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#loop = this.#run(this.#stop.signal);
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, config, log } = this.#deps;
    try {
      for (;;) {
        try {
          await this.sweep(signal);
        } catch (error) {
          signal.throwIfAborted();
          log.warn('the sweep failed; it will be tried again', { reason: errorMessage(error) });
        }
        await clock.sleep(config.reconciler.sweep, signal);
      }
    } catch (error) {
      if (!signal.aborted) log.error('the sweeper ended', { error });
    }
  }

  /** One look; removes what was nobody's at the last one too. */
  async sweep(signal: AbortSignal): Promise<void> {
    const { config, provider, network, store, log, nodeName } = this.#deps;
    // What exists first, the journal second: a sandbox made in between is then never taken for an orphan.
    const tags = ownerTags(config.cluster, nodeName);
    const machines = await provider.describe({ by: 'tags', tags }, signal);
    const namespaces = await network.list(signal);
    const orphanMachines = machines.filter((machine) => !store.knows(machine.tags[TAGS.sandbox] ?? ''));
    const orphanNetworks = namespaces.filter((sandboxId) => !store.knows(sandboxId));

    const again = orphanMachines.filter(({ id }) => this.#suspects.has(id)).map(({ id }) => id);
    if (again.length > 0) {
      log.warn('terminating machines that nobody owns', { instanceIds: again });
      await provider.terminate(again, signal);
    }
    for (const sandboxId of orphanNetworks.filter((id) => this.#suspects.has(id))) {
      log.warn('removing a pod network that nobody owns', { sandboxId });
      await network.remove({ sandboxId, podName: '', podNamespace: '', podUid: '', portMappings: [] }, signal);
    }
    this.#suspects = new Set<string>([...orphanMachines.map(({ id }) => id), ...orphanNetworks]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }
}
