/** Compute Engine behind the driver interface: single calls, the operations that they begin, every error as it came. */
import { createHash } from 'node:crypto';
import type { protos } from '@google-cloud/compute';
import { matchesGlob } from '../../src/base/glob.ts';
import { abortable } from '../../src/base/keyed-lock.ts';
import { withTimeout } from '../../src/base/time.ts';
import { type Check, type InstanceState, type Leftover, TAGS } from '../../src/cloud/contract.ts';
import {
  type CloudDriver,
  type CloudMachine,
  cloudPodLink,
  type LaunchCall,
  type MachineType,
} from '../../src/cloud/kit.ts';
import { type Clients, closeClients, createClients } from './clients.ts';
import type { GcpConfig } from './config.ts';
import { classify, httpError, OperationError } from './errors.ts';
import { customType, offersOf } from './types.ts';
import { volumes } from './volumes.ts';

type GceInstance = protos.google.cloud.compute.v1.IInstance;
type NetworkInterface = protos.google.cloud.compute.v1.INetworkInterface;
type Operation = protos.google.cloud.compute.v1.IOperation;

const GIB = 2 ** 30;
const MIB = 2 ** 20;
/** Metadata keys. The agent reads the first, this driver the second: labels cannot hold every tag. */
const USER_DATA = 'infralet-user-data';
const TAG_DATA = 'infralet-tags';
const PAGE = 500;
/** The client warns when it is not told what it does anyway: the async form goes through the pages by itself. */
const NO_PAGES = { autoPaginate: false } as const;

const STATES: Readonly<Record<string, InstanceState>> = {
  PROVISIONING: 'pending',
  STAGING: 'pending',
  PENDING: 'pending',
  RUNNING: 'running',
  REPAIRING: 'running',
  SUSPENDING: 'stopping',
  STOPPING: 'stopping',
  SUSPENDED: 'suspended',
  // A machine that powered itself off: its disk still costs, and nothing will start it again.
  TERMINATED: 'stopped',
  STOPPED: 'stopped',
};

export function gcpDriver(config: GcpConfig): CloudDriver {
  const clients = createClients(config);
  const { project } = config;

  const finish = async (operation: Operation, zone: string, signal: AbortSignal): Promise<void> => {
    let current = operation;
    const what = `the operation ${operation.name ?? ''} in ${zone}`;
    using limit = withTimeout(signal, config.operationTimeout, what);
    // One wait ends after two minutes at the latest, done or not.
    while (current.status !== 'DONE') {
      const wait = clients.operations.wait({ project, zone, operation: current.name ?? '' });
      [current] = await abortable(wait, limit);
    }
    const [error] = current.error?.errors ?? [];
    if (error) throw new OperationError(error.code ?? 'UNKNOWN', error.message ?? 'the operation failed');
  };

  return {
    name: 'gcp',
    // One name, one machine: a call that is repeated can be told by it.
    maxPerCall: 1,

    catalogue: async (signal) => {
      const found = new Map<string, { type: MachineType; zones: string[] }>();
      const pages = clients.machineTypes.aggregatedListAsync({ project, maxResults: PAGE }, NO_PAGES);
      for await (const [scope, list] of pages) {
        signal.throwIfAborted();
        const zone = scope.replace(/^zones\//, '');
        if (!config.zones.includes(zone)) continue;
        for (const entry of list.machineTypes ?? []) {
          const name = entry.name ?? '';
          if (!config.machineTypes.some((glob) => matchesGlob(glob, name))) continue;
          const type = found.get(name) ?? { type: toType(entry), zones: [] };
          type.zones.push(zone);
          found.set(name, type);
        }
      }
      return [...found.values()].flatMap(({ type, zones }) => offersOf(type, zones, config.prices));
    },

    custom: (need) =>
      config.customTypes.flatMap((series) => {
        const type = customType(series, need);
        return type ? offersOf(type, config.zones, config.prices) : [];
      }),

    launch: async (call, signal) => {
      const { zone } = call.offer;
      const name = machineName(call.token);
      try {
        const insert = clients.instances.insert({
          project,
          zone,
          requestId: requestId(call.token),
          instanceResource: resource(name, call, config),
        });
        const [operation] = await abortable(insert, signal);
        await finish(operation.latestResponse as Operation, zone, signal);
      } catch (error) {
        // The name is taken: by an earlier try of this very call, since nobody else makes such names.
        if (httpError(error).status !== 409) throw error;
      }
      const [instance] = await abortable(clients.instances.get({ project, zone, instance: name }), signal);
      return [toMachine(instance, zone)];
    },

    list: async (tags, signal) => {
      const machines: CloudMachine[] = [];
      const filter = Object.entries(tags)
        .flatMap(([key, value]) => (LABELS[key] === undefined ? [] : [`labels.${LABELS[key]}=${labelValue(value)}`]))
        .join(' AND ');
      const pages = clients.instances.aggregatedListAsync({ project, filter, maxResults: PAGE }, NO_PAGES);
      for await (const [scope, list] of pages) {
        signal.throwIfAborted();
        for (const entry of list.instances ?? []) machines.push(toMachine(entry, scope.replace(/^zones\//, '')));
      }
      const wanted = machines.filter((machine) =>
        Object.entries(tags).every(([key, value]) => machine.tags[key] === value),
      );
      return { machines: wanted, pages: Math.max(1, Math.ceil(machines.length / PAGE)) };
    },

    terminate: async (ids, signal) => {
      await Promise.all(
        ids.map(async (id) => {
          const { zone, name } = place(id);
          // Not waited for: the machine is gone or going, and its disk with it.
          await abortable(clients.instances.delete({ project, zone, instance: name }), signal);
        }),
      );
    },

    classify,

    console: async (id, maxBytes, signal) => {
      const { zone, name } = place(id);
      const [output] = await abortable(
        clients.instances.getSerialPortOutput({ project, zone, instance: name }),
        signal,
      );
      return Buffer.from(output.contents ?? '')
        .subarray(-maxBytes)
        .toString('utf8');
    },

    directPods: config.podAddress === 'direct',
    podLink: (machine) => cloudPodLink(machine, config.podAddress),

    power: {
      suspend: async (ids, signal) => {
        for (const id of ids) {
          const { zone, name } = place(id);
          await abortable(clients.instances.suspend({ project, zone, instance: name }), signal);
        }
      },
      resume: async (ids, signal) => {
        for (const id of ids) {
          const { zone, name } = place(id);
          await abortable(clients.instances.resume({ project, zone, instance: name }), signal);
        }
      },
    },

    volumes: volumes(clients, project, place, finish),

    leftovers: diskLeftovers(clients, config),

    doctor: async (signal) => await examine(clients, config, signal),

    [Symbol.asyncDispose]: async () => {
      await closeClients(clients);
    },
  };
}

/** Tags that become labels, by which machines are found. */
const LABELS: Readonly<Record<string, string>> = {
  [TAGS.cluster]: 'infralet-cluster',
  [TAGS.node]: 'infralet-node',
  [TAGS.sandbox]: 'infralet-sandbox',
};

/** Labels take lower-case letters, digits, - and _ only, 63 at most; what does not fit is found by its hash. */
function labelValue(value: string): string {
  if (/^[a-z0-9_-]{0,63}$/.test(value)) return value;
  return createHash('sha256').update(value).digest('hex').slice(0, 32);
}

function labels(tags: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(LABELS).flatMap(([tag, label]) => {
      const value = tags[tag];
      return value === undefined ? [] : [[label, labelValue(value)]];
    }),
  );
}

function machineName(token: string): string {
  return `infralet-${createHash('sha256').update(token).digest('hex').slice(0, 16)}`;
}

/** A UUID that follows from the token: the cloud takes two calls with one for the same. */
function requestId(token: string): string {
  const hex = createHash('sha256').update(`request|${token}`).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/** Machines are named by zone and name: there is no call that needs only one of them. */
function place(id: string): { readonly zone: string; readonly name: string } {
  const [zone = '', name = ''] = id.split('/');
  // The client would send an empty part to some other address of the API.
  if (zone === '' || !/^[a-z0-9-]+$/.test(name)) throw new OperationError('RESOURCE_NOT_FOUND', `no machine ${id}`);
  return { zone, name };
}

function resource(name: string, call: LaunchCall, config: GcpConfig): GceInstance {
  const { zone, type, market } = call.offer;
  const spot = market === 'spot';
  const limited = config.maxRunDuration > 0;
  return {
    name,
    machineType: `zones/${zone}/machineTypes/${type.name}`,
    labels: labels(call.tags),
    metadata: {
      items: [
        { key: USER_DATA, value: call.userData },
        { key: TAG_DATA, value: JSON.stringify(call.tags) },
        { key: 'block-project-ssh-keys', value: 'true' },
      ],
    },
    tags: { items: [...config.networkTags] },
    disks: [
      {
        boot: true,
        autoDelete: true,
        initializeParams: {
          sourceImage: config.image,
          diskSizeGb: String(Math.ceil((config.imageSize + call.diskBytes) / GIB)),
          diskType: `zones/${zone}/diskTypes/${config.diskType}`,
          labels: labels(call.tags),
        },
      },
    ],
    networkInterfaces: [{ subnetwork: config.subnetwork, ...aliasOf(config) }],
    // No service account: nothing in a machine may speak for the project.
    serviceAccounts: [],
    scheduling: {
      automaticRestart: false,
      onHostMaintenance: spot || type.gpus ? 'TERMINATE' : 'MIGRATE',
      provisioningModel: spot ? 'SPOT' : 'STANDARD',
      ...(spot || limited ? { instanceTerminationAction: 'DELETE' } : {}),
      ...(limited ? { maxRunDuration: { seconds: Math.ceil(config.maxRunDuration / 1000) } } : {}),
    },
  };
}

/** One address of a range, by its length alone: the cloud chooses which. */
function aliasOf({ podAddress, podRange }: GcpConfig): Pick<NetworkInterface, 'aliasIpRanges'> {
  if (podAddress === 'tunnel') return {};
  const range = podRange === undefined ? {} : { subnetworkRangeName: podRange };
  return { aliasIpRanges: [{ ipCidrRange: '/32', ...range }] };
}

function toMachine(instance: GceInstance, zone: string): CloudMachine {
  const state = STATES[instance.status ?? ''] ?? 'pending';
  const [nic] = instance.networkInterfaces ?? [];
  return {
    id: `${zone}/${instance.name ?? ''}`,
    tags: readTags(instance),
    state,
    reason: state === 'stopped' ? instance.statusMessage || 'it was stopped' : '',
    launchedAt: Date.parse(instance.creationTimestamp ?? '') || 0,
    address: nic?.networkIP ?? undefined,
    podAddress: nic?.aliasIpRanges?.[0]?.ipCidrRange?.replace(/\/32$/, ''),
    type: (instance.machineType ?? '').replace(/^.*\//, ''),
    zone,
    market: instance.scheduling?.provisioningModel === 'SPOT' ? 'spot' : 'on-demand',
  };
}

function readTags(instance: GceInstance): Readonly<Record<string, string>> {
  const text = instance.metadata?.items?.find(({ key }) => key === TAG_DATA)?.value;
  try {
    const value: unknown = JSON.parse(text ?? '{}');
    if (typeof value !== 'object' || value === null) return {};
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, String(entry)]));
  } catch {
    return {};
  }
}

function toType(entry: protos.google.cloud.compute.v1.IMachineType): MachineType {
  const [gpu] = entry.accelerators ?? [];
  return {
    name: entry.name ?? '',
    architecture: entry.architecture === 'ARM64' ? 'arm64' : 'amd64',
    cpuMillis: (entry.guestCpus ?? 0) * 1000,
    memoryBytes: (entry.memoryMb ?? 0) * MIB,
    gpus: gpu ? { model: gpu.guestAcceleratorType ?? '', count: gpu.guestAcceleratorCount ?? 0 } : undefined,
  };
}

/** Disks that were not deleted with their machine. */
function diskLeftovers(clients: Clients, config: GcpConfig): NonNullable<CloudDriver['leftovers']> {
  return {
    list: async (tags, signal) => {
      const found: Leftover[] = [];
      const filter = Object.entries(labels(tags))
        .map(([label, value]) => `labels.${label}=${value}`)
        .join(' AND ');
      const pages = clients.disks.aggregatedListAsync({ project: config.project, filter }, NO_PAGES);
      for await (const [scope, list] of pages) {
        signal.throwIfAborted();
        for (const disk of list.disks ?? []) {
          if ((disk.users ?? []).length > 0) continue;
          const createdAt = Date.parse(disk.creationTimestamp ?? '') || undefined;
          found.push({ kind: 'disk', id: `${scope.replace(/^zones\//, '')}/${disk.name ?? ''}`, tags, createdAt });
        }
      }
      return found;
    },
    remove: async ({ id }, signal) => {
      const { zone, name } = place(id);
      await abortable(clients.disks.delete({ project: config.project, zone, disk: name }), signal);
    },
  };
}

async function examine(clients: Clients, config: GcpConfig, signal: AbortSignal): Promise<readonly Check[]> {
  const project = /projects\/([^/]+)/.exec(config.image)?.[1] ?? config.project;
  const name = config.image.replace(/^.*\//, '');
  try {
    const get = config.image.includes('/family/')
      ? clients.images.getFromFamily({ project, family: name })
      : clients.images.get({ project, image: name });
    await abortable(get, signal);
    return [
      { name: 'gcp project', ok: true, detail: `${config.project}, zones ${config.zones.join(', ')}, image ${name}` },
    ];
  } catch (error) {
    return [
      {
        name: 'gcp project',
        ok: false,
        detail: classify(error).message,
        fix: 'infralet image publish gcp makes the image; docs/providers/gcp.md names the permissions',
      },
    ];
  }
}
