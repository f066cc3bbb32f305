/** Persistent disks in running machines; named as zone and name, like machines. */
import type { protos } from '@google-cloud/compute';
import { InfraletError } from '../../src/base/errors.ts';
import { abortable } from '../../src/base/keyed-lock.ts';
import type { CloudDriver } from '../../src/cloud/kit.ts';
import type { Clients } from './clients.ts';
import { httpError } from './errors.ts';

type Operation = protos.google.cloud.compute.v1.IOperation;

interface Place {
  readonly zone: string;
  readonly name: string;
}

/** @param place takes the id of a machine or disk apart. @param finish waits for an operation. */
export function volumes(
  { disks, instances }: Clients,
  project: string,
  place: (id: string) => Place,
  finish: (operation: Operation, zone: string, signal: AbortSignal) => Promise<void>,
): NonNullable<CloudDriver['volumes']> {
  return {
    find: async (volume, signal) => {
      const parts = /^[a-z0-9-]+\/[a-z0-9-]+$/.test(volume) ? place(volume) : undefined;
      if (!parts) return undefined;
      const { zone, name } = parts;
      try {
        const [disk] = await abortable(disks.get({ project, zone, disk: name }), signal);
        const machines = (disk.users ?? []).map((user) =>
          user.replace(/^.*\/zones\/([^/]+)\/instances\/([^/]+)$/, '$1/$2'),
        );
        // Operations are waited for: what it has, it has.
        return { machines, state: machines.length === 0 ? 'free' : 'attached', serial: name };
      } catch (error) {
        if (httpError(error).status === 404) return undefined;
        throw error;
      }
    },
    attach: async (id, volume, signal) => {
      const [machine, disk] = [place(id), place(volume)];
      if (machine.zone !== disk.zone) {
        throw new InfraletError('INVALID_ARGUMENT', `the disk ${volume} is not in the zone of the machine ${id}`);
      }
      const source = `projects/${project}/zones/${disk.zone}/disks/${disk.name}`;
      const call = instances.attachDisk({
        ...{ project, zone: machine.zone, instance: machine.name },
        attachedDiskResource: { source, deviceName: disk.name },
      });
      const [operation] = await abortable(call, signal);
      await finish(operation.latestResponse as Operation, machine.zone, signal);
    },
    detach: async (id, volume, signal) => {
      const { zone, name } = place(id);
      const call = instances.detachDisk({ project, zone, instance: name, deviceName: place(volume).name });
      const [operation] = await abortable(call, signal);
      await finish(operation.latestResponse as Operation, zone, signal);
    },
  };
}
