/** The configured provider, for a command that runs where no daemon does. */
import { join } from 'node:path';
import { ensureDirectory } from '../base/files.ts';
import { systemClock } from '../base/time.ts';
import { ownerTags, type Provider } from '../cloud/contract.ts';
import { loadProvider } from '../cloud/loader.ts';
import type { Config } from '../config/schema.ts';
import { nullLogger } from '../telemetry/log.ts';

export async function openProvider(config: Config, signal: AbortSignal): Promise<Provider> {
  const module = await loadProvider(config.provider);
  const section = module.parseConfig(config.providers[config.provider]);
  const stateDir = join(config.stateDir, 'providers', module.name);
  await ensureDirectory(stateDir, 0o700);
  const owner = ownerTags(config.cluster, config.node);
  const context = { log: nullLogger, clock: systemClock, stateDir, guestImageDir: config.guestImageDir, owner };
  return await module.create(section, context, signal);
}
