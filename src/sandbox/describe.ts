/** All that is known about one sandbox, for `infralet describe`. */
import { errorMessage } from '../base/errors.ts';
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
  return {
    ...known,
    steps: deps.journal.steps(sandboxId),
    consoleTail: instanceId === undefined ? '' : await consoleTail(provider, instanceId, CONSOLE_BYTES, signal),
    usage: instanceId === undefined ? null : await provider.usage?.(instanceId, signal).catch(errorMessage),
  };
}
