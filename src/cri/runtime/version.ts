/** Version: who answers, and in which API version. */
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';

/** Version of the kubelet's runtime API, the same for every runtime; older clients send it and compare. */
const KUBE_API_VERSION = '0.1.0';

export function version(deps: CriDeps, _request: CriRequestFull<'Version'>): CriResponse<'Version'> {
  return {
    version: KUBE_API_VERSION,
    runtimeName: 'infralet',
    runtimeVersion: deps.version,
    runtimeApiVersion: 'v1',
  };
}
