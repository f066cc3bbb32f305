/** Block volumes of the provider in the machines of pods, by an operator's wish; a machine that ends lets go of its own. */
import { InfraletError } from '../base/errors.ts';
import type { InstanceId } from '../base/ids.ts';
import type { Provider, Volumes } from '../cloud/contract.ts';
import type { Journal } from '../state/journal.ts';
import type { SandboxStore } from './store.ts';
import { findSandboxes } from './why-find.ts';

export interface PodVolumes {
  /** @param pod a sandbox's id or a prefix of it, a pod's uid, name or NAMESPACE/NAME. Resolves with the disk's serial. */
  attach(pod: string, volume: string, signal: AbortSignal): Promise<string>;
  detach(pod: string, volume: string, signal: AbortSignal): Promise<void>;
}

export function podVolumes(deps: {
  readonly store: SandboxStore;
  readonly journal: Journal;
  readonly provider: Provider;
}): PodVolumes {
  const { provider } = deps;
  const known = (): Volumes => {
    if (provider.volumes) return provider.volumes;
    throw new InfraletError('FAILED_PRECONDITION', `the provider ${provider.name} has no volumes to attach`, {
      hint: 'volumes of CSI plugins reach pods as live shares, whatever makes the machines',
    });
  };
  const machineOf = (pod: string): InstanceId => {
    const { record, removedAt } = findSandboxes(deps, pod).found;
    if (record.instanceId !== undefined && record.machine === 'launched' && removedAt === undefined) {
      return record.instanceId;
    }
    throw new InfraletError('FAILED_PRECONDITION', `the pod ${pod} has no machine now`, {
      hint: `see: infralet why ${pod}`,
    });
  };
  const told = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      if (error instanceof InfraletError) throw error;
      throw new InfraletError('UNKNOWN', provider.classify(error).message, { cause: error });
    }
  };
  return {
    attach: async (pod, volume, signal) =>
      await told(async () => (await known().attach(machineOf(pod), volume, signal)).serial),
    detach: async (pod, volume, signal) => await told(async () => await known().detach(machineOf(pod), volume, signal)),
  };
}
