/** Machines that do not exist. */
import type { ProviderModule } from '../../src/cloud/contract.ts';
import { type FakeConfig, parseConfig } from './config.ts';
import { FaultPlan } from './faults.ts';
import { FakeProvider } from './provider.ts';

export const provider: ProviderModule<FakeConfig> = {
  name: 'fake',
  parseConfig,
  create: async (config, context) => new FakeProvider(config, context, new FaultPlan(config.faults)),
};
