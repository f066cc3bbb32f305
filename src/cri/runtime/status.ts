/** Status: whether this node can take pods, what its runtime handlers can do, and with `verbose` why. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { verboseInfo } from '../convert/info.ts';
import type { Condition, CriDeps } from '../deps.ts';
import { FEATURES } from '../features.ts';

export async function status(
  deps: CriDeps,
  request: CriRequestFull<'Status'>,
  context: CallContext,
): Promise<CriResponse<'Status'>> {
  const state = await deps.runtimeStatus(context.signal);
  return {
    status: { conditions: [condition('RuntimeReady', state.runtime), condition('NetworkReady', state.network)] },
    runtimeHandlers: deps.config.runtimeHandlers.map((name) => ({
      name,
      features: {
        recursiveReadOnlyMounts: FEATURES.recursiveReadOnlyMounts,
        userNamespaces: FEATURES.userNamespaces,
      },
    })),
    features: {
      supplementalGroupsPolicy: FEATURES.supplementalGroupsPolicy,
      userNamespacesHostNetwork: FEATURES.userNamespacesHostNetwork,
      mountOptions: FEATURES.mountOptions,
    },
    info: verboseInfo(request.verbose, () => state.info),
  };
}

function condition(type: string, { ok, reason, message }: Condition) {
  return { type, status: ok, reason, message };
}
