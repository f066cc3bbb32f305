/** EC2 behind the driver interface: single calls, nothing repeated, every error as it came. */
import {
  type _InstanceType,
  DescribeImagesCommand,
  DescribeInstancesCommand,
  DescribeSubnetsCommand,
  EC2Client,
  EC2ServiceException,
  type Instance as Ec2Instance,
  GetConsoleOutputCommand,
  RunInstancesCommand,
  type RunInstancesCommandInput,
  StartInstancesCommand,
  StopInstancesCommand,
  type Tag,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import { errorMessage, InfraletError } from '../../src/base/errors.ts';
import type { Clock } from '../../src/base/time.ts';
import type { Check, InstanceState } from '../../src/cloud/contract.ts';
import {
  type CloudDriver,
  type CloudMachine,
  cloudPodLink,
  type LaunchCall,
  type MachineType,
} from '../../src/cloud/kit.ts';
import { architectureOf, readCatalogue } from './catalogue.ts';
import type { AwsConfig } from './config.ts';
import { classify, classifyStateReason } from './errors.ts';
import { leftovers } from './leftovers.ts';
import { volumes } from './volumes.ts';

const GIB = 2 ** 30;
/** One page of DescribeInstances; the most that EC2 gives. */
const PAGE = 1000;

const STATES: Readonly<Record<string, InstanceState>> = {
  pending: 'pending',
  running: 'running',
  'shutting-down': 'stopping',
  stopping: 'stopping',
  // It can be started again: nothing here stops for good without being terminated.
  stopped: 'suspended',
  terminated: 'terminated',
};

interface Place {
  /** Subnet by zone. */
  readonly subnets: ReadonlyMap<string, string>;
  /** The AMI's own name for its disk. */
  readonly rootDevice: string;
  /** What it can be booted on; undefined: the cloud does not say. */
  readonly architecture: MachineType['architecture'] | undefined;
}

export interface AwsDriverOptions {
  readonly config: AwsConfig;
  readonly clock: Clock;
  /** Default: the SDK's own, from environment, files or the machine's role. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string };
  /** Most machines per RunInstances; test clouds that ignore MaxCount take 1. @default 1000 */
  readonly maxPerCall?: number;
}

export function awsDriver(options: AwsDriverOptions): CloudDriver {
  const { config, clock } = options;
  const client = newClient(options);
  let place: Promise<Place> | undefined;

  const placed = async (signal: AbortSignal): Promise<Place> => {
    place ??= findPlace(client, config, signal).catch((error: unknown) => {
      place = undefined;
      throw error;
    });
    return await place;
  };

  return {
    name: 'aws',
    maxPerCall: options.maxPerCall ?? PAGE,

    catalogue: async (signal) => {
      const { subnets, architecture } = await placed(signal);
      const zones = [...subnets.keys()];
      const { instanceTypes: types, prices } = config;
      const offers = await readCatalogue(client, { types, zones, prices, now: clock.now() }, signal);
      return offers.filter(({ type }) => architecture === undefined || type.architecture === architecture);
    },

    launch: async (call, signal) => {
      const { Instances } = await client.send(new RunInstancesCommand(runInput(call, config, await placed(signal))), {
        abortSignal: signal,
      });
      return (Instances ?? []).flatMap(toMachine);
    },

    list: async (tags, signal) => {
      const machines: CloudMachine[] = [];
      let pages = 0;
      let next: string | undefined;
      do {
        const page = await client.send(
          new DescribeInstancesCommand({
            MaxResults: PAGE,
            ...(next === undefined ? {} : { NextToken: next }),
            Filters: Object.entries(tags).map(([key, value]) => ({ Name: `tag:${key}`, Values: [value] })),
          }),
          { abortSignal: signal },
        );
        pages += 1;
        for (const { Instances } of page.Reservations ?? []) machines.push(...(Instances ?? []).flatMap(toMachine));
        next = page.NextToken;
      } while (next !== undefined && next !== '');
      return { machines, pages };
    },

    terminate: async (ids, signal) => {
      await client.send(new TerminateInstancesCommand({ InstanceIds: [...ids] }), { abortSignal: signal });
    },

    classify,

    console: async (id, maxBytes, signal) => {
      try {
        // The newest output; only machines of the Nitro kind have it, the others what was written at their start.
        return await consoleText(client, id, true, maxBytes, signal);
      } catch (error) {
        if (!(error instanceof EC2ServiceException) || error.name !== 'UnsupportedOperation') throw error;
        return await consoleText(client, id, false, maxBytes, signal);
      }
    },

    directPods: config.podAddress === 'direct',
    podLink: (machine) => cloudPodLink(machine, config.podAddress),

    power: {
      suspend: async (ids, signal) => {
        const command = new StopInstancesCommand({ InstanceIds: [...ids], Hibernate: config.hibernate });
        await client.send(command, { abortSignal: signal });
      },
      resume: async (ids, signal) => {
        await client.send(new StartInstancesCommand({ InstanceIds: [...ids] }), { abortSignal: signal });
      },
    },

    volumes: volumes(client),

    leftovers: leftovers(client),

    doctor: async (signal) => await examine(client, config, placed, signal),

    [Symbol.asyncDispose]: async () => {
      client.destroy();
    },
  };
}

function newClient({ config, credentials }: AwsDriverOptions): EC2Client {
  return new EC2Client({
    region: config.region,
    ...(config.endpoint === undefined ? {} : { endpoint: config.endpoint }),
    ...(credentials === undefined ? {} : { credentials }),
    // InsufficientInstanceCapacity comes as HTTP 500: the SDK would ask the same empty zone three times within 100 ms.
    maxAttempts: 1,
    requestHandler: { requestTimeout: config.requestTimeout },
  });
}

async function findPlace(client: EC2Client, config: AwsConfig, signal: AbortSignal): Promise<Place> {
  const [subnets, images] = await Promise.all([
    client.send(new DescribeSubnetsCommand({ SubnetIds: [...config.subnets] }), { abortSignal: signal }),
    client.send(new DescribeImagesCommand({ ImageIds: [config.imageId] }), { abortSignal: signal }),
  ]);
  const byZone = new Map<string, string>();
  for (const { AvailabilityZone: zone, SubnetId: id } of subnets.Subnets ?? []) {
    if (zone !== undefined && id !== undefined && !byZone.has(zone)) byZone.set(zone, id);
  }
  const [image] = images.Images ?? [];
  if (!image) {
    throw new InfraletError('INVALID_ARGUMENT', `there is no AMI ${config.imageId} in ${config.region}`, {
      hint: 'infralet image publish aws makes one; its id goes into providers.aws.imageId',
    });
  }
  return {
    subnets: byZone,
    rootDevice: image.RootDeviceName ?? '/dev/xvda',
    architecture: architectureOf([image.Architecture]),
  };
}

function runInput(call: LaunchCall, config: AwsConfig, place: Place): RunInstancesCommandInput {
  const { offer } = call;
  const subnet = place.subnets.get(offer.zone);
  if (subnet === undefined)
    throw new InfraletError('INVALID_ARGUMENT', `no subnet is configured for zone ${offer.zone}`);
  const tags: Tag[] = Object.entries(call.tags).map(([Key, Value]) => ({ Key, Value }));
  return {
    // Tags in the call itself: a machine without them could not be found again after a crash, and its disk never.
    TagSpecifications: (['instance', 'volume', 'network-interface'] as const).map((ResourceType) => ({
      ResourceType,
      Tags: ResourceType === 'instance' ? [...tags, { Key: 'Name', Value: machineName(call) }] : tags,
    })),
    ClientToken: call.token,
    ImageId: config.imageId,
    InstanceType: offer.type.name as _InstanceType,
    MinCount: 1,
    MaxCount: call.count,
    ...networkOf(subnet, config),
    UserData: Buffer.from(call.userData).toString('base64'),
    // The pod's own network never reaches the metadata service; one hop keeps out what would come by way of the machine.
    MetadataOptions: { HttpEndpoint: 'enabled', HttpTokens: 'required', HttpPutResponseHopLimit: 1 },
    // The agent powers a machine off that has lost its node for good: that must end what it costs, too.
    InstanceInitiatedShutdownBehavior: 'terminate',
    BlockDeviceMappings: [
      {
        DeviceName: place.rootDevice,
        Ebs: {
          VolumeSize: Math.ceil((config.imageSize + call.diskBytes) / GIB),
          VolumeType: config.volumeType,
          Encrypted: config.encrypted,
          DeleteOnTermination: true,
        },
      },
    ],
    ...(config.hibernate ? { HibernationOptions: { Configured: true } } : {}),
    ...(config.instanceProfile === undefined ? {} : { IamInstanceProfile: profile(config.instanceProfile) }),
    ...(config.launchTemplate === undefined ? {} : { LaunchTemplate: { LaunchTemplateId: config.launchTemplate } }),
    ...(offer.market === 'spot'
      ? {
          InstanceMarketOptions: {
            MarketType: 'spot',
            SpotOptions: { SpotInstanceType: 'one-time', InstanceInterruptionBehavior: 'terminate' },
          },
        }
      : {}),
  };
}

/** A second address of the interface is asked for with the interface, which is described apart then. */
function networkOf(
  subnet: string,
  { securityGroups, podAddress }: AwsConfig,
): Pick<RunInstancesCommandInput, 'SubnetId' | 'SecurityGroupIds' | 'NetworkInterfaces'> {
  if (podAddress === 'tunnel') return { SubnetId: subnet, SecurityGroupIds: [...securityGroups] };
  return {
    NetworkInterfaces: [
      {
        DeviceIndex: 0,
        SubnetId: subnet,
        Groups: [...securityGroups],
        SecondaryPrivateIpAddressCount: 1,
        DeleteOnTermination: true,
      },
    ],
  };
}

function machineName(call: LaunchCall): string {
  return `infralet-${call.tags['infralet.dev/sandbox'] ?? call.token}`;
}

function profile(name: string): { readonly Arn: string } | { readonly Name: string } {
  return name.startsWith('arn:') ? { Arn: name } : { Name: name };
}

function toMachine(instance: Ec2Instance): readonly CloudMachine[] {
  const { InstanceId: id, State, StateReason, StateTransitionReason } = instance;
  if (id === undefined) return [];
  const state = STATES[State?.Name ?? ''] ?? 'pending';
  const endedBy = classifyStateReason(StateReason?.Code ?? '');
  const said = StateReason?.Message ?? StateTransitionReason ?? '';
  const code = StateReason?.Code ?? '';
  // EC2 begins most messages with their code.
  const reason = said.startsWith(code) ? said : [code, said].filter(Boolean).join(': ');
  return [
    {
      id,
      tags: Object.fromEntries((instance.Tags ?? []).map(({ Key, Value }) => [Key ?? '', Value ?? ''])),
      state,
      reason: state === 'pending' || state === 'running' ? '' : reason,
      ...(state === 'terminated' && endedBy ? { endedBy } : {}),
      launchedAt: instance.LaunchTime?.getTime() ?? 0,
      address: instance.PrivateIpAddress,
      podAddress: instance.NetworkInterfaces?.flatMap(({ PrivateIpAddresses = [] }) => PrivateIpAddresses).find(
        ({ Primary }) => Primary === false,
      )?.PrivateIpAddress,
      type: instance.InstanceType ?? '',
      zone: instance.Placement?.AvailabilityZone ?? '',
      market: instance.InstanceLifecycle === 'spot' ? 'spot' : 'on-demand',
    },
  ];
}

async function consoleText(
  client: EC2Client,
  id: string,
  latest: boolean,
  maxBytes: number,
  signal: AbortSignal,
): Promise<string> {
  const { Output } = await client.send(new GetConsoleOutputCommand({ InstanceId: id, Latest: latest }), {
    abortSignal: signal,
  });
  return Buffer.from(Output ?? '', 'base64')
    .subarray(-maxBytes)
    .toString('utf8');
}

async function examine(
  client: EC2Client,
  config: AwsConfig,
  placed: (signal: AbortSignal) => Promise<Place>,
  signal: AbortSignal,
): Promise<readonly Check[]> {
  let place: Place;
  try {
    place = await placed(signal);
  } catch (error) {
    return [{ name: 'aws account', ok: false, detail: classify(error).message || errorMessage(error) }];
  }
  const zones = [...place.subnets.keys()].join(', ');
  const checks: Check[] = [
    { name: 'aws account', ok: true, detail: `${config.region}, zones ${zones}, ${config.imageId}` },
  ];
  try {
    // Asks for the permission only: EC2 answers a dry run with an error either way.
    await client.send(
      new RunInstancesCommand({
        DryRun: true,
        ImageId: config.imageId,
        MinCount: 1,
        MaxCount: 1,
        InstanceType: 't3.small',
      }),
      { abortSignal: signal },
    );
  } catch (error) {
    const allowed = error instanceof EC2ServiceException && error.name === 'DryRunOperation';
    checks.push({
      name: 'aws permission to launch',
      ok: allowed,
      detail: allowed ? 'ec2:RunInstances is allowed' : classify(error).message,
      ...(allowed ? {} : { fix: 'give the node the policy in docs/providers/aws.md' }),
    });
  }
  return checks;
}
