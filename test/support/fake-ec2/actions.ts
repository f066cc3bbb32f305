/** The actions that Infralet uses, from parameters to answers. */
import { Buffer } from 'node:buffer';
import { Ec2Fault, type FakeCloud, type FakeInstance, type FakeType } from './cloud.ts';
import type { Params } from './params.ts';
import type { Xml } from './xml.ts';

type Action = (cloud: FakeCloud, params: Params) => Xml | Promise<Xml>;

export const ACTIONS: Readonly<Record<string, Action>> = {
  RunInstances: async (cloud, params) => {
    if (params.text('DryRun') === 'true')
      throw new Ec2Fault('DryRunOperation', 'the request would have succeeded', 412);
    const type = required(params, 'InstanceType');
    if (!cloud.options.types.some(({ name }) => name === type)) {
      throw new Ec2Fault('InvalidParameterValue', `invalid instance type ${type}`);
    }
    const zone = cloud.options.zones.find((name) => subnetOf(name) === params.text('SubnetId'));
    if (zone === undefined) throw new Ec2Fault('InvalidSubnetID.NotFound', 'the subnet does not exist');
    const tags = params
      .list('TagSpecification')
      .filter((entry) => entry.text('ResourceType') === 'instance')
      .flatMap((entry) => entry.list('Tag').map((tag) => [tag.text('Key') ?? '', tag.text('Value') ?? ''] as const));
    const instances = await cloud.run({
      token: required(params, 'ClientToken'),
      type,
      zone,
      market: params.text('InstanceMarketOptions.MarketType') === 'spot' ? 'spot' : 'on-demand',
      min: Number(required(params, 'MinCount')),
      max: Number(required(params, 'MaxCount')),
      userData: params.text('UserData') ?? '',
      tags: Object.fromEntries(tags),
      request: params.all(),
    });
    return {
      reservationId: `r-${instances[0]?.id ?? ''}`,
      instancesSet: instances.map((entry) => instanceXml(cloud, entry)),
    };
  },

  DescribeInstances: (cloud, params) => {
    const shown = cloud.visible.filter((instance) => matchesFilters(instance, params));
    const size = Number(params.text('MaxResults') ?? 1000);
    const from = Number(params.text('NextToken') ?? 0);
    const page = shown.slice(from, from + size);
    return {
      reservationSet: page.map((entry) => ({ instancesSet: [instanceXml(cloud, entry)] })),
      nextToken: from + size < shown.length ? from + size : undefined,
    };
  },

  TerminateInstances: async (cloud, params) => {
    const instances = cloud.known(params.values('InstanceId'));
    for (const entry of instances) await cloud.end(entry, 'Client.UserInitiatedShutdown', 'User initiated shutdown');
    return { instancesSet: instances.map(({ id }) => ({ instanceId: id })) };
  },

  StopInstances: async (cloud, params) => {
    for (const entry of cloud.known(params.values('InstanceId'))) await cloud.stop(entry);
    return { instancesSet: [] };
  },
  StartInstances: async (cloud, params) => {
    for (const entry of cloud.known(params.values('InstanceId'))) await cloud.start(entry);
    return { instancesSet: [] };
  },

  GetConsoleOutput: async (cloud, params) => {
    const [instance] = cloud.known([required(params, 'InstanceId')]);
    const output = instance ? await cloud.console(instance) : '';
    return { instanceId: instance?.id, output: Buffer.from(output).toString('base64') };
  },

  DescribeSubnets: (cloud) => ({
    subnetSet: cloud.options.zones.map((zone) => ({ subnetId: subnetOf(zone), availabilityZone: zone })),
  }),
  DescribeImages: ({ ebs }, params) => {
    const ids = params.values('ImageId');
    // Tests launch from images that nobody has published.
    if (ids.length > 0) return { imagesSet: ids.map((imageId) => ({ imageId, rootDeviceName: '/dev/xvda' })) };
    const named = [...ebs.images.values()].filter(({ name }) => filtered(params, 'name', name));
    return { imagesSet: named.map(({ id, name }) => ({ imageId: id, name, rootDeviceName: '/dev/xvda' })) };
  },
  RegisterImage: ({ ebs }, params) => {
    const snapshot = ebs.snapshots.get(params.text('BlockDeviceMapping.1.Ebs.SnapshotId') ?? '');
    if (snapshot?.state !== 'completed') throw new Ec2Fault('InvalidSnapshot.NotFound', 'no such snapshot');
    const name = required(params, 'Name');
    if ([...ebs.images.values()].some((image) => image.name === name)) {
      throw new Ec2Fault('InvalidAMIName.Duplicate', `AMI name ${name} is already in use`);
    }
    return { imageId: ebs.register(params.all()).id };
  },
  DescribeSnapshots: ({ ebs }, params) => {
    const ids = params.values('SnapshotId');
    const found = [...ebs.snapshots.values()].filter(({ id, tags, state }) =>
      ids.length > 0
        ? ids.includes(id)
        : filtered(params, 'status', state) &&
          Object.entries(tags).every(([key, value]) => filtered(params, `tag:${key}`, value)),
    );
    return {
      snapshotSet: found.map((snapshot) => {
        const seen = snapshot.state === 'completed' && snapshot.looks > 0 ? 'pending' : snapshot.state;
        snapshot.looks -= 1;
        return { snapshotId: snapshot.id, status: seen, volumeSize: snapshot.sizeGib };
      }),
    };
  },
  DeleteSnapshot: ({ ebs }, params) => {
    ebs.snapshots.delete(required(params, 'SnapshotId'));
    return { return: true };
  },
  DescribeInstanceTypes: (cloud, params) => ({
    instanceTypeSet: cloud.options.types.filter(({ name }) => filtered(params, 'instance-type', name)).map(typeXml),
  }),
  DescribeInstanceTypeOfferings: (cloud, params) => ({
    instanceTypeOfferingSet: cloud.options.types
      .filter(({ name }) => filtered(params, 'instance-type', name))
      .flatMap(({ name }) => cloud.options.zones.map((location) => ({ instanceType: name, location }))),
  }),
  DescribeSpotPriceHistory: (cloud) => ({
    spotPriceHistorySet: cloud.options.types.flatMap(({ name, spotPrice }) =>
      cloud.options.zones.map((availabilityZone) => ({ instanceType: name, availabilityZone, spotPrice })),
    ),
  }),
  DescribeVolumes: () => ({ volumeSet: [] }),
  DescribeNetworkInterfaces: () => ({ networkInterfaceSet: [] }),
  DescribeAddresses: () => ({ addressesSet: [] }),
};

export function subnetOf(zone: string): string {
  return `subnet-${zone}`;
}

function required(params: Params, name: string): string {
  const value = params.text(name);
  if (value === undefined) throw new Ec2Fault('MissingParameter', `the request must contain ${name}`);
  return value;
}

/** `*` in a filter's value stands for anything. */
function filtered(params: Params, name: string, value: string): boolean {
  const filter = params.list('Filter').find((entry) => entry.text('Name') === name);
  return (
    !filter ||
    filter
      .values('Value')
      .some((glob) => new RegExp(`^${glob.replace(/[.+]/g, '\\$&').replaceAll('*', '.*')}$`).test(value))
  );
}

function matchesFilters(instance: FakeInstance, params: Params): boolean {
  return params.list('Filter').every((filter) => {
    const name = filter.text('Name') ?? '';
    const values = filter.values('Value');
    if (name.startsWith('tag:')) return values.includes(instance.tags[name.slice(4)] ?? '');
    throw new Ec2Fault('InvalidParameterValue', `the fake knows no filter ${name}`);
  });
}

function instanceXml(cloud: FakeCloud, instance: FakeInstance): Xml {
  return {
    instanceId: instance.id,
    instanceType: instance.type,
    instanceState: { name: cloud.state(instance) },
    stateReason: instance.ended && { code: instance.ended.code, message: instance.ended.message },
    instanceLifecycle: instance.market === 'spot' ? 'spot' : undefined,
    launchTime: new Date(instance.launchedAt).toISOString(),
    placement: { availabilityZone: instance.zone },
    // Gone with the machine, as with EC2.
    privateIpAddress: instance.ended ? undefined : instance.address,
    clientToken: instance.token,
    tagSet: Object.entries(instance.tags).map(([key, value]) => ({ key, value })),
  };
}

function typeXml(type: FakeType): Xml {
  return {
    instanceType: type.name,
    bareMetal: false,
    supportedUsageClasses: ['on-demand', 'spot'],
    vCpuInfo: { defaultVCpus: type.cpus },
    memoryInfo: { sizeInMiB: type.memoryMib },
    processorInfo: { supportedArchitectures: [type.architecture] },
    gpuInfo: type.gpus && { gpus: [{ name: type.gpus.name, count: type.gpus.count }] },
  };
}
