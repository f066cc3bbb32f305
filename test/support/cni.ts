/** Pod networks on bridges that only one test has. */
import { join } from 'node:path';
import { CniNetwork } from '../../src/network/cni-network.ts';
import { nullLogger } from '../../src/telemetry/log.ts';

/** A bridge of the node that is the pods' gateway, with addresses from these subnets: one of each family at most. */
export function bridgePlugin(name: string, ...subnets: readonly string[]): object {
  return {
    type: 'bridge',
    bridge: name,
    isGateway: true,
    ipMasq: true,
    hairpinMode: true,
    ipam: {
      type: 'host-local',
      ranges: subnets.map((subnet) => [{ subnet }]),
      routes: subnets.map((subnet) => ({ dst: subnet.includes(':') ? '::/0' : '0.0.0.0/0' })),
    },
  };
}

export const PORTMAP_PLUGIN = { type: 'portmap', capabilities: { portMappings: true } };

/** Text of a configuration file. */
export function conflist(name: string, plugins: readonly object[]): string {
  return JSON.stringify({ cniVersion: '1.0.0', name, plugins });
}

/** The network as the daemon has it: configurations in `dir/conf`, plugins in `dir/bin` and the usual places. */
export function cniNetwork(dir: string, stateDir = dir): CniNetwork {
  return new CniNetwork({
    confDir: join(dir, 'conf'),
    binDirs: [join(dir, 'bin'), '/opt/cni/bin', '/usr/lib/cni'],
    cacheDir: join(dir, 'cache'),
    timeoutMs: 60_000,
    stateDir,
    vxlan: { port: 4789 },
    log: nullLogger,
  });
}
