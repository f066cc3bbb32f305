/**
 * UpdateRuntimeConfig: the node's pod CIDR, as the kubelet learned it from the cluster. Pods get their addresses from the
 * node's CNI configuration, which knows it already; a wrong one is refused and a right one noted.
 */
import { BlockList, isIP } from 'node:net';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { invalid, quote } from '../validate/fields.ts';

const PATH = 'runtime_config.network_config.pod_cidr';

export function updateRuntimeConfig(
  deps: CriDeps,
  request: CriRequestFull<'UpdateRuntimeConfig'>,
): CriResponse<'UpdateRuntimeConfig'> {
  const podCidr = request.runtimeConfig?.networkConfig?.podCidr ?? '';
  // An empty one says that the cluster assigns none (yet).
  for (const cidr of podCidr === '' ? [] : podCidr.split(',')) checkCidr(cidr);
  deps.log.info('pod CIDR of this node; addresses come from its CNI configuration', { podCidr });
  return {};
}

function checkCidr(text: string): void {
  const [, address = '', bits = ''] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? [];
  const family = isIP(address);
  if (family === 0) invalid(PATH, `must be CIDRs such as 10.0.0.0/24, is ${quote(text)}`);
  try {
    new BlockList().addSubnet(address, Number(bits), family === 4 ? 'ipv4' : 'ipv6');
  } catch {
    invalid(PATH, `has a prefix that is too long: ${quote(text)}`);
  }
}
