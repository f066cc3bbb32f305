/** EBS volumes in running machines. */
import {
  AttachVolumeCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  type EC2Client,
  EC2ServiceException,
} from '@aws-sdk/client-ec2';
import { InfraletError } from '../../src/base/errors.ts';
import type { CloudDriver } from '../../src/cloud/kit.ts';

/** Names that EC2 keeps for volumes beside the root; on today's machines they are labels, and each is good for one volume. */
const DEVICES = Array.from('fghijklmnop', (letter) => `/dev/sd${letter}`);

export function volumes(client: EC2Client): NonNullable<CloudDriver['volumes']> {
  return {
    find: async (volume, signal) => {
      if (!/^vol-[0-9a-f]{8,17}$/.test(volume)) return undefined;
      try {
        const { Volumes } = await client.send(new DescribeVolumesCommand({ VolumeIds: [volume] }), {
          abortSignal: signal,
        });
        const found = Volumes?.[0];
        if (!found) return undefined;
        const attachments = (found.Attachments ?? []).filter(({ State }) => State !== 'detached');
        const changing = attachments.some(({ State }) => State !== 'attached');
        return {
          machines: attachments.flatMap(({ InstanceId }) => InstanceId ?? []),
          state: attachments.length === 0 ? 'free' : changing ? 'changing' : 'attached',
          serial: volume.replace('-', ''),
        };
      } catch (error) {
        if (error instanceof EC2ServiceException && error.name === 'InvalidVolume.NotFound') return undefined;
        throw error;
      }
    },
    attach: async (id, volume, signal) => {
      const Filters = [{ Name: 'attachment.instance-id', Values: [id] }];
      const { Volumes } = await client.send(new DescribeVolumesCommand({ Filters }), { abortSignal: signal });
      const taken = new Set(Volumes?.flatMap(({ Attachments }) => Attachments?.map(({ Device }) => Device) ?? []));
      const Device = DEVICES.find((name) => !taken.has(name));
      if (Device === undefined)
        throw new InfraletError('INVALID_ARGUMENT', `the machine ${id} has no room for a volume`);
      await client.send(new AttachVolumeCommand({ InstanceId: id, VolumeId: volume, Device }), { abortSignal: signal });
    },
    detach: async (id, volume, signal) => {
      await client.send(new DetachVolumeCommand({ InstanceId: id, VolumeId: volume }), { abortSignal: signal });
    },
  };
}
