/** RuntimeConfig: the cgroup driver. A kubelet from 1.28 on asks and takes ours over its own setting. */
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';

const DRIVERS = { cgroupfs: 'CGROUPFS', systemd: 'SYSTEMD' } as const;

export function runtimeConfig(deps: CriDeps, _request: CriRequestFull<'RuntimeConfig'>): CriResponse<'RuntimeConfig'> {
  return { linux: { cgroupDriver: DRIVERS[deps.config.server.cgroupDriver] } };
}
