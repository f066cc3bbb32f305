/** All that is known about one sandbox, for `infralet describe`. */
import type { Provider } from '../cloud/contract.ts';
import type { Journal } from '../state/journal.ts';
import { consoleTail } from './console.ts';
import type { SandboxService } from './service.ts';
import type { SandboxStore } from './store.ts';

/** Enough to see the end of a kernel's panic and what led to it. */
const CONSOLE_BYTES = 8192;

export async function describeSandbox(
  deps: {
    readonly store: SandboxStore;
    readonly journal: Journal;
    readonly provider: Provider;
    readonly sandboxes: SandboxService;
  },
  id: string,
  signal: AbortSignal,
): Promise<Readonly<Record<string, unknown>>> {
  const known = deps.sandboxes.describe(id);
  const sandboxId = String(known['id']);
  const record = deps.store.find(sandboxId)?.record;
  const instanceId = record?.machine === 'launched' ? record.instanceId : undefined;
  const { provider } = deps;
  const usage =
    instanceId === undefined ? undefined : await provider.usage?.(instanceId, signal).catch(() => undefined);
  return {
    ...known,
    // What it uses stands beside what it was given; left out where the provider cannot tell.
    ...(record && usage ? { machine: { ...record.shape, usage } } : {}),
    steps: deps.journal.steps(sandboxId),
    consoleTail: instanceId === undefined ? '' : await consoleTail(provider, instanceId, CONSOLE_BYTES, signal),
  };
}
