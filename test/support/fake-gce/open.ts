/** The GCP provider at a test cloud's address. */
import { join } from 'node:path';
import { type GcpConfig, parseConfig } from '../../../providers/gcp/config.ts';
import { gcpDriver } from '../../../providers/gcp/driver.ts';
import { systemClock } from '../../../src/base/time.ts';
import type { CloudDriver } from '../../../src/cloud/kit.ts';
import { LaunchStore } from '../../../src/cloud/launch-store.ts';
import { CloudProvider } from '../../../src/cloud/provider.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';

interface Options {
  readonly endpoint: string;
  readonly settings?: Readonly<Record<string, unknown>>;
}

/** Driver and settings, for who makes the provider himself. */
export function gcpParts(options: Options): { readonly driver: CloudDriver; readonly config: GcpConfig } {
  const config = parseConfig({
    project: 'p',
    endpoint: options.endpoint,
    zones: ['us-east1-b', 'us-east1-c'],
    image: 'projects/p/global/images/infralet-1',
    subnetwork: 'projects/p/regions/us-east1/subnetworks/pods',
    customTypes: [],
    describeEvery: '0ms',
    terminateIdle: '5ms',
    retryInitial: '20ms',
    ...options.settings,
  });
  return { driver: gcpDriver(config), config };
}

export function openGcp(
  options: Options & { readonly stateDir: string; readonly owner?: Readonly<Record<string, string>> },
): CloudProvider {
  return new CloudProvider({
    ...gcpParts(options),
    store: new LaunchStore(join(options.stateDir, 'launches.db')),
    owner: options.owner ?? {},
    clock: systemClock,
    log: nullLogger,
  });
}
