/** Machines of Amazon EC2. */
import type { ProviderModule } from '../../src/cloud/contract.ts';
import { cloudProvider } from '../../src/cloud/kit.ts';
import { type AwsConfig, parseConfig } from './config.ts';
import { awsDriver } from './driver.ts';

export const provider: ProviderModule<AwsConfig> = {
  name: 'aws',
  parseConfig,
  create: async (config, context) => cloudProvider(awsDriver({ config, clock: context.clock }), config, context),
  publish: async (section, disk, signal) => (await import('./publish.ts')).publish(section, disk, signal),
};
