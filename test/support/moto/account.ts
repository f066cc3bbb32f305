/** What an operator sets up for Infralet, in moto's account: network, security group, image. */
import {
  CreateSecurityGroupCommand,
  CreateSubnetCommand,
  CreateVpcCommand,
  DescribeInstancesCommand,
  DescribeVolumesCommand,
  EC2Client,
  RegisterImageCommand,
} from '@aws-sdk/client-ec2';

/** In us-east-1a and us-east-1b. */
const ZONES = ['us-east-1a', 'us-east-1b'] as const;

export interface MotoAccount {
  /** A client beside the provider's, to look at what it has done. */
  readonly client: EC2Client;
  /** For `providers.aws`. */
  readonly settings: {
    readonly imageId: string;
    readonly subnets: readonly string[];
    readonly securityGroups: readonly string[];
  };
  /** Machines that are not terminated, and volumes, by the machine that they are attached to, if any. */
  alive(): Promise<readonly { readonly id: string; readonly machine: string | undefined }[]>;
}

export async function setUpAccount(endpoint: string, signal: AbortSignal): Promise<MotoAccount> {
  const credentials = { accessKeyId: 'test', secretAccessKey: 'test' };
  const client = new EC2Client({ region: 'us-east-1', endpoint, credentials, maxAttempts: 1 });
  const options = { abortSignal: signal };
  const { Vpc } = await client.send(new CreateVpcCommand({ CidrBlock: '10.9.0.0/16' }), options);
  const VpcId = named(Vpc?.VpcId, 'VPC');
  const subnets: string[] = [];
  for (const [index, AvailabilityZone] of ZONES.entries()) {
    const asked = { VpcId, AvailabilityZone, CidrBlock: `10.9.${index}.0/24` };
    const { Subnet } = await client.send(new CreateSubnetCommand(asked), options);
    subnets.push(named(Subnet?.SubnetId, 'subnet'));
  }
  const group = { VpcId, GroupName: 'infralet', Description: 'machines' };
  const { GroupId } = await client.send(new CreateSecurityGroupCommand(group), options);
  const image = { Name: 'infralet', Architecture: 'x86_64', RootDeviceName: '/dev/xvda' } as const;
  const { ImageId } = await client.send(new RegisterImageCommand(image), options);

  return {
    client,
    settings: {
      imageId: named(ImageId, 'image'),
      subnets,
      securityGroups: [named(GroupId, 'security group')],
    },
    alive: async () => {
      const [instances, volumes] = await Promise.all([
        client.send(new DescribeInstancesCommand({})),
        client.send(new DescribeVolumesCommand({})),
      ]);
      const machines = (instances.Reservations ?? [])
        .flatMap(({ Instances }) => Instances ?? [])
        .filter(({ State }) => State?.Name !== 'terminated')
        .map(({ InstanceId: id = '' }) => ({ id, machine: id }));
      const disks = (volumes.Volumes ?? []).map(({ VolumeId: id = '', Attachments }) => ({
        ...{ id, machine: Attachments?.[0]?.InstanceId },
      }));
      return [...machines, ...disks];
    },
  };
}

function named(id: string | undefined, what: string): string {
  if (id === undefined) throw new Error(`moto has made a ${what} without an id`);
  return id;
}
