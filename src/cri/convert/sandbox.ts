/** Sandboxes as the CRI shows them. */
import { nanos } from '../../base/time.ts';
import type { PodSandbox } from '../../gen/runtime/v1/PodSandbox.ts';
import type { PodSandboxStatus } from '../../gen/runtime/v1/PodSandboxStatus.ts';
import type { SandboxView } from '../../sandbox/service.ts';
import { memo } from './memo.ts';

const stateOf = (view: SandboxView) => (view.ready ? 'SANDBOX_READY' : 'SANDBOX_NOTREADY');

/** One line of a list: the same object as long as nothing changes; see itemwise. */
export const listedSandbox = memo(convert);

function convert(view: SandboxView): PodSandbox {
  const { config } = view;
  return {
    id: view.id,
    metadata: config.metadata,
    state: stateOf(view),
    createdAt: nanos(view.createdAt),
    labels: config.labels,
    annotations: config.annotations,
    runtimeHandler: view.runtimeHandler,
  };
}

export function sandboxStatus(view: SandboxView): PodSandboxStatus {
  const [ip = '', ...more] = view.ips;
  return {
    ...listedSandbox(view),
    network: { ip, additionalIps: more.map((additional) => ({ ip: additional })) },
    // Echoed as asked for: a kubelet that finds other modes than it wants makes the pod anew.
    linux: { namespaces: { options: view.config.linux?.securityContext?.namespaceOptions ?? {} } },
  };
}
