/** What may be left of machines and goes on costing: volumes, network interfaces, addresses. */
import {
  DeleteNetworkInterfaceCommand,
  DeleteVolumeCommand,
  DescribeAddressesCommand,
  DescribeNetworkInterfacesCommand,
  DescribeVolumesCommand,
  type EC2Client,
  ReleaseAddressCommand,
  type Tag,
} from '@aws-sdk/client-ec2';
import type { Leftover } from '../../src/cloud/contract.ts';
import type { CloudDriver } from '../../src/cloud/kit.ts';

export function leftovers(client: EC2Client): NonNullable<CloudDriver['leftovers']> {
  return {
    list: async (tags, signal) => {
      const Filters = Object.entries(tags).map(([key, value]) => ({ Name: `tag:${key}`, Values: [value] }));
      const unused = [...Filters, { Name: 'status', Values: ['available'] }];
      const options = { abortSignal: signal };
      const [volumes, interfaces, addresses] = await Promise.all([
        client.send(new DescribeVolumesCommand({ Filters: unused }), options),
        client.send(new DescribeNetworkInterfacesCommand({ Filters: unused }), options),
        client.send(new DescribeAddressesCommand({ Filters }), options),
      ]);
      return [
        ...(volumes.Volumes ?? []).map(
          ({ VolumeId, Tags, CreateTime }): Leftover => ({
            kind: 'disk',
            id: VolumeId ?? '',
            tags: tagMap(Tags),
            createdAt: CreateTime?.getTime(),
          }),
        ),
        ...(interfaces.NetworkInterfaces ?? []).map(
          ({ NetworkInterfaceId, TagSet }): Leftover => ({
            kind: 'interface',
            id: NetworkInterfaceId ?? '',
            tags: tagMap(TagSet),
            createdAt: undefined,
          }),
        ),
        ...(addresses.Addresses ?? [])
          .filter(({ AssociationId }) => AssociationId === undefined)
          .map(
            ({ AllocationId, Tags }): Leftover => ({
              kind: 'address',
              id: AllocationId ?? '',
              tags: tagMap(Tags),
              createdAt: undefined,
            }),
          ),
      ].filter(({ id }) => id !== '');
    },
    remove: async ({ kind, id }, signal) => {
      const options = { abortSignal: signal };
      switch (kind) {
        case 'disk':
          await client.send(new DeleteVolumeCommand({ VolumeId: id }), options);
          break;
        case 'interface':
          await client.send(new DeleteNetworkInterfaceCommand({ NetworkInterfaceId: id }), options);
          break;
        case 'address':
          await client.send(new ReleaseAddressCommand({ AllocationId: id }), options);
      }
    },
  };
}

function tagMap(tags: readonly Tag[] | undefined): Readonly<Record<string, string>> {
  return Object.fromEntries((tags ?? []).map(({ Key, Value }) => [Key ?? '', Value ?? '']));
}
