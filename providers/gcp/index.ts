/** Machines of Google Compute Engine. */
import type { ProviderModule } from '../../src/cloud/contract.ts';
import { cloudProvider } from '../../src/cloud/kit.ts';
import { type GcpConfig, parseConfig } from './config.ts';
import { gcpDriver } from './driver.ts';

export const provider: ProviderModule<GcpConfig> = {
  name: 'gcp',
  parseConfig,
  create: async (config, context) => cloudProvider(gcpDriver(config), config, context),
  publish: async (section, disk, signal) => (await import('./publish.ts')).publish(section, disk, signal),
};
