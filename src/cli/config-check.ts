/** `infralet config check [FILE]`: every problem of a configuration file, the provider's own section included. */
import { loadProvider } from '../cloud/loader.ts';
import { loadConfig } from '../config/load.ts';
import { type Io, line } from './io.ts';

/** Throws INVALID_ARGUMENT listing what is wrong. */
export async function configCheck(file: string | undefined, io: Io): Promise<void> {
  const config = await loadConfig(file);
  const provider = await loadProvider(config.provider);
  provider.parseConfig(config.providers[config.provider]);
  line(io.out, `${file ?? 'the configuration'} is in order (provider ${config.provider}, state in ${config.stateDir})`);
}
