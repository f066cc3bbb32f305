/** What machines use, for people: never an error, and never longer than somebody will wait for a list. */
import PQueue from 'p-queue';
import type { InstanceId } from '../base/ids.ts';
import { abortable } from '../base/keyed-lock.ts';
import { withTimeout } from '../base/time.ts';
import type { MachineUsage, Provider } from '../cloud/contract.ts';
import type { SandboxRecord } from './record.ts';

/** For all machines together; those not asked by then count as unknown. */
const ALL_MS = 3000;
/** Asked at once. For a local provider each costs a look into the kernel's books, which take a lock of the machine. */
const AT_ONCE = 8;

/** In the order of `records`; null where there is no machine or the provider cannot tell. Throws only with `signal`. */
export async function machineUsages(
  provider: Provider,
  records: readonly SandboxRecord[],
  signal: AbortSignal,
  limitMs = ALL_MS,
): Promise<readonly (MachineUsage | null)[]> {
  using limit = withTimeout(signal, limitMs, 'asking what machines use');
  const ask = async (id: InstanceId): Promise<MachineUsage | null> => {
    if (limit.aborted || !provider.usage) return null;
    try {
      // Not every provider looks at its signal.
      return await abortable(provider.usage(id, limit), limit);
    } catch {
      return null;
    }
  };
  const queue = new PQueue({ concurrency: AT_ONCE });
  const usages = await Promise.all(
    records.map(async ({ machine, instanceId }) =>
      machine === 'launched' && instanceId !== undefined ? await queue.add(() => ask(instanceId)) : null,
    ),
  );
  signal.throwIfAborted();
  return usages;
}
