/** The actions that Infralet uses, from parameters to answers. */
import { Buffer } from 'node:buffer';
import { Ec2Fault, type FakeCloud, type FakeInstance, type FakeType, type FakeVolume } from './cloud.ts';
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
    const [nic] = params.list('NetworkInterface');
    if (nic && (params.text('SubnetId') ?? params.text('SecurityGroupId.1')) !== undefined) {
      const said = 'Network interfaces and an instance-level subnet ID may not be specified on the same request';
      throw new Ec2Fault('InvalidParameterCombination', said);
    }
    const subnet = (nic ?? params).text('SubnetId');
    const zone = cloud.options.zones.find((name) => subnetOf(name) === subnet);
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
      secondaries: Number(nic?.text('SecondaryPrivateIpAddressCount') ?? 0),
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
    if (ids.length > 0) {
      // Their names may say what they are for.
      const architecture = (id: string): string | undefined => /^ami-(x86_64|arm64)$/.exec(id)?.[1];
      return {
        imagesSet: ids.map((imageId) => ({
          ...{ imageId, rootDeviceName: '/dev/xvda', architecture: architecture(imageId) },
        })),
      };
    }
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
  DescribeVolumes: (cloud, params) => {
    const ids = params.values('VolumeId');
    const found = ids.length > 0 ? ids.map((id) => volume(cloud, id)) : [...cloud.volumes.values()];
    for (const each of found) {
      // A machine that has ended lets go of what was not its own.
      if (cloud.instances.get(each.attachment?.instance ?? '')?.ended) each.attachment = undefined;
    }
    const shown = found.filter(
      ({ attachment }) =>
        filtered(params, 'status', attachment ? 'in-use' : 'available') &&
        filtered(params, 'attachment.instance-id', attachment?.instance ?? '') &&
        // Nobody has tagged them.
        !params.list('Filter').some((entry) => entry.text('Name')?.startsWith('tag:')),
    );
    return {
      volumeSet: shown.map((each) => {
        const { id, zone, attachment, looks } = each;
        each.looks -= 1;
        const status = looks > 0 ? 'attaching' : 'attached';
        return {
          volumeId: id,
          availabilityZone: zone,
          status: attachment ? 'in-use' : 'available',
          attachmentSet: attachment ? [{ instanceId: attachment.instance, device: attachment.device, status }] : [],
        };
      }),
    };
  },
  AttachVolume: (cloud, params) => {
    const [instance] = cloud.known([required(params, 'InstanceId')]);
    const found = volume(cloud, required(params, 'VolumeId'));
    if (!instance || instance.ended) throw new Ec2Fault('IncorrectState', 'the instance is not running');
    if (found.attachment) throw new Ec2Fault('VolumeInUse', `${found.id} is already attached to an instance`);
    if (found.zone !== instance.zone) {
      throw new Ec2Fault('InvalidVolume.ZoneMismatch', `${found.id} is not in the same availability zone`);
    }
    const device = required(params, 'Device');
    const taken = [...cloud.volumes.values()].map(({ attachment }) => `${attachment?.instance} ${attachment?.device}`);
    if (taken.includes(`${instance.id} ${device}`)) {
      throw new Ec2Fault(
        'InvalidParameterValue',
        `Invalid value '${device}' for unixDevice. Attachment point is in use`,
      );
    }
    Object.assign(found, { attachment: { instance: instance.id, device }, looks: 2 });
    return { status: 'attaching' };
  },
  DetachVolume: (cloud, params) => {
    const found = volume(cloud, required(params, 'VolumeId'));
    if (found.attachment?.instance !== params.text('InstanceId')) {
      throw new Ec2Fault('IncorrectState', `${found.id} is not attached to the instance`);
    }
    found.attachment = undefined;
    return { status: 'detaching' };
  },
  DescribeNetworkInterfaces: () => ({ networkInterfaceSet: [] }),
  DescribeAddresses: () => ({ addressesSet: [] }),
};

function volume(cloud: FakeCloud, id: string): FakeVolume {
  const found = cloud.volumes.get(id);
  if (!found) throw new Ec2Fault('InvalidVolume.NotFound', `The volume '${id}' does not exist.`);
  return found;
}

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
    networkInterfaceSet: instance.ended ? [] : [{ privateIpAddressesSet: addressesXml(instance) }],
    clientToken: instance.token,
    tagSet: Object.entries(instance.tags).map(([key, value]) => ({ key, value })),
  };
}

function addressesXml({ address, secondaries }: FakeInstance): Xml {
  return [address, ...secondaries].map((each) => ({ privateIpAddress: each, primary: each === address }));
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
