/**
 * Where moto is not EC2: all that the tests leave out or do otherwise on its account, each with a probe that tells whether it is
 * still so. A test asks all probes: what moto has learned comes off the list, and the tests with it.
 */
import {
  DescribeInstanceTypeOfferingsCommand,
  DescribeNetworkInterfacesCommand,
  type Instance,
  RunInstancesCommand,
  type RunInstancesCommandInput,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import type { MotoAccount } from './account.ts';

/** What the provider is told because of it. */
export const MOTO_SETTINGS = { maxPerCall: 1, instanceTypes: ['t3.small', 'm7i.large', 'c7i.large'] } as const;

export interface Deviation {
  readonly what: string;
  /** What is done about it. */
  readonly therefore: string;
  readonly stillSo: (account: MotoAccount) => Promise<boolean>;
}

export const MOTO_DEVIATIONS: readonly Deviation[] = [
  {
    what: 'RunInstances makes MinCount machines, whatever MaxCount says',
    therefore: 'the provider asks for one at a time; batches are tested with the fake EC2',
    stillSo: async (account) => (await launched(account, { MinCount: 1, MaxCount: 2 })).length === 1,
  },
  {
    what: 'RunInstances makes another machine for the same client token',
    therefore: 'launches repeated after a lost answer are tested with the fake EC2',
    stillSo: async (account) => {
      const token = { ClientToken: 'once', MinCount: 1, MaxCount: 1 };
      const [first] = await launched(account, token);
      return first !== (await launched(account, token))[0];
    },
  },
  {
    what: 'DescribeInstanceTypeOfferings takes names of types and no patterns',
    therefore: 'the types are named in the settings',
    stillSo: async ({ client }) => {
      const Filters = [{ Name: 'instance-type', Values: ['t3.*'] }];
      const command = new DescribeInstanceTypeOfferingsCommand({ LocationType: 'availability-zone', Filters });
      return (await client.send(command)).InstanceTypeOfferings?.length === 0;
    },
  },
  {
    what: 'RunInstances gives an interface no secondary addresses',
    therefore: 'what becomes of a second address is tested with the fake EC2',
    stillSo: async (account) => {
      const NetworkInterfaces = [
        { DeviceIndex: 0, SubnetId: account.settings.subnets[0], SecondaryPrivateIpAddressCount: 1 },
      ];
      const asked = { ImageId: account.settings.imageId, MinCount: 1, MaxCount: 1, NetworkInterfaces };
      const { Instances } = await account.client.send(new RunInstancesCommand(asked));
      const [made] = await ended(account, Instances);
      return made?.NetworkInterfaces?.[0]?.PrivateIpAddresses?.length === 1;
    },
  },
  {
    what: 'TerminateInstances leaves the network interface that RunInstances made',
    therefore: 'interfaces do not count as leftovers of the machines here',
    stillSo: async (account) => {
      const [id = ''] = await launched(account, { MinCount: 1, MaxCount: 1 });
      const Filters = [{ Name: 'attachment.instance-id', Values: [id] }];
      const { NetworkInterfaces } = await account.client.send(new DescribeNetworkInterfacesCommand({ Filters }));
      return NetworkInterfaces?.length === 1;
    },
  },
];

/** Ids of machines launched past the provider, and ended again. */
async function launched(
  { client, settings }: MotoAccount,
  asked: Pick<RunInstancesCommandInput, 'MinCount' | 'MaxCount' | 'ClientToken'>,
): Promise<readonly string[]> {
  const place = { ImageId: settings.imageId, SubnetId: settings.subnets[0] ?? '' };
  const { Instances } = await client.send(new RunInstancesCommand({ ...place, ...asked }));
  return (await ended({ client }, Instances)).map(({ InstanceId = '' }) => InstanceId);
}

async function ended(
  { client }: Pick<MotoAccount, 'client'>,
  instances: readonly Instance[] = [],
): Promise<readonly Instance[]> {
  const ids = instances.map(({ InstanceId = '' }) => InstanceId);
  await client.send(new TerminateInstancesCommand({ InstanceIds: ids }));
  return instances;
}
