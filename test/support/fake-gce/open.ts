/** The GCP provider at a test cloud's address. */
import { join } from 'node:path';
import { parseConfig } from '../../../providers/gcp/config.ts';
import { gcpDriver } from '../../../providers/gcp/driver.ts';
import { systemClock } from '../../../src/base/time.ts';
import { LaunchStore } from '../../../src/cloud/launch-store.ts';
import { CloudProvider } from '../../../src/cloud/provider.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';

export function openGcp(options: {
  readonly endpoint: string;
  readonly stateDir: string;
  readonly settings?: Readonly<Record<string, unknown>>;
  readonly owner?: Readonly<Record<string, string>>;
}): CloudProvider {
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
  return new CloudProvider({
    driver: gcpDriver(config),
    config,
    store: new LaunchStore(join(options.stateDir, 'launches.db')),
    owner: options.owner ?? {},
    clock: systemClock,
    log: nullLogger,
  });
}
