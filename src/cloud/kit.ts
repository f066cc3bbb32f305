/** What a cloud's provider module is made of: a driver, the settings that every cloud has, and this. */
import { join } from 'node:path';
import type { PodLink, Provider, ProviderContext } from './contract.ts';
import type { CloudDriver, CloudMachine } from './driver.ts';
import type { FleetConfig } from './fleet-config.ts';
import { LaunchStore } from './launch-store.ts';
import { CloudProvider } from './provider.ts';

export type {
  CloudDriver,
  CloudFault,
  CloudMachine,
  LaunchCall,
} from './driver.ts';
export { fleetSettings, podAddressSetting } from './fleet-config.ts';
export type { MachineType, Offer } from './offers.ts';

/** A machine that was launched before the setting became `direct` has no address for a pod: it goes on with the tunnel. */
export function cloudPodLink({ address, podAddress }: CloudMachine, setting: 'tunnel' | 'direct'): PodLink | undefined {
  if (address === undefined) return undefined;
  if (setting === 'tunnel' || podAddress === undefined) return { kind: 'vxlan', address };
  return { kind: 'direct', address, podAddress };
}

/** The provider contract over a driver; what it must remember lies in the provider's state directory. */
export function cloudProvider(driver: CloudDriver, config: FleetConfig, context: ProviderContext): Provider {
  const { clock, log, stateDir, owner } = context;
  return new CloudProvider({
    driver,
    config,
    store: new LaunchStore(join(stateDir, 'launches.db')),
    owner,
    clock,
    log,
  });
}
