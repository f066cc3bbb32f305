/** The AWS provider at a test cloud's address. */
import { join } from 'node:path';
import { type AwsConfig, parseConfig } from '../../../providers/aws/config.ts';
import { awsDriver } from '../../../providers/aws/driver.ts';
import { type Clock, systemClock } from '../../../src/base/time.ts';
import type { CloudDriver } from '../../../src/cloud/kit.ts';
import { LaunchStore } from '../../../src/cloud/launch-store.ts';
import { CloudProvider } from '../../../src/cloud/provider.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { subnetOf } from './actions.ts';

interface Options {
  readonly endpoint: string;
  readonly settings?: Readonly<Record<string, unknown>>;
  readonly maxPerCall?: number;
}

/** Driver and settings, for who makes the provider himself. */
export function awsParts(options: Options, clock: Clock): { readonly driver: CloudDriver; readonly config: AwsConfig } {
  const config = parseConfig({
    region: 'us-east-1',
    endpoint: options.endpoint,
    imageId: 'ami-0123456789abcdef0',
    subnets: ['z-1a', 'z-1b'].map(subnetOf),
    securityGroups: ['sg-0123'],
    prices: { 't3.small': 0.0208, 'm7i.large': 0.1008, 'c7i.large': 0.0893 },
    // So that what a test has just made or ended is seen at once.
    describeEvery: '0ms',
    terminateIdle: '5ms',
    retryInitial: '20ms',
    ...options.settings,
  });
  const driver = awsDriver({
    config,
    clock,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    ...(options.maxPerCall === undefined ? {} : { maxPerCall: options.maxPerCall }),
  });
  return { driver, config };
}

export function openAws(
  options: Options & { readonly stateDir: string; readonly owner?: Readonly<Record<string, string>> },
): CloudProvider {
  return new CloudProvider({
    ...awsParts(options, systemClock),
    store: new LaunchStore(join(options.stateDir, 'launches.db')),
    owner: options.owner ?? {},
    clock: systemClock,
    log: nullLogger,
  });
}
