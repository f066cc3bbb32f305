/** The embedded default: machines on this host, made by QEMU. */
import type { ProviderModule } from '../../src/cloud/contract.ts';
import { parseConfig, type QemuConfig } from './config.ts';
import { QemuProvider } from './provider.ts';

export const provider: ProviderModule<QemuConfig> = {
  name: 'qemu',
  parseConfig,
  create: async (config, context, signal) => await QemuProvider.open(config, context, signal),
};
