/** What a cloud's provider module is made of: a driver, the settings that every cloud has, and this. */
import { join } from 'node:path';
import type { Provider, ProviderContext } from './contract.ts';
import type { CloudDriver } from './driver.ts';
import type { FleetConfig } from './fleet-config.ts';
import { LaunchStore } from './launch-store.ts';
import { CloudProvider } from './provider.ts';

export type {
  CloudDriver,
  CloudFault,
  CloudMachine,
  LaunchCall,
} from './driver.ts';
export { fleetSettings } from './fleet-config.ts';
export type { MachineType, Offer } from './offers.ts';

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
