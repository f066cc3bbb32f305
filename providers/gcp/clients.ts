/** The official client's parts that are used here, made for the configured address. */
import {
  DisksClient,
  GlobalOperationsClient,
  ImagesClient,
  InstancesClient,
  MachineTypesClient,
  ZoneOperationsClient,
} from '@google-cloud/compute';
import { PassThroughClient } from 'google-auth-library';
import type { GcpConfig } from './config.ts';

export interface Clients {
  readonly instances: InstancesClient;
  readonly operations: ZoneOperationsClient;
  readonly machineTypes: MachineTypesClient;
  readonly disks: DisksClient;
  readonly images: ImagesClient;
}

/** What `image publish` needs. */
export interface Publishing {
  readonly images: ImagesClient;
  readonly operations: GlobalOperationsClient;
}

interface Address {
  readonly project: string;
  readonly endpoint?: string | undefined;
}

export function createPublishing(address: Address): Publishing {
  const options = clientOptions(address);
  return { images: new ImagesClient(options), operations: new GlobalOperationsClient(options) };
}

export async function closePublishing({ images, operations }: Publishing): Promise<void> {
  await Promise.all([images.close(), operations.close()]);
}

function clientOptions({ project, endpoint }: Address) {
  return { projectId: project, ...(endpoint === undefined ? {} : address(new URL(endpoint))) };
}

export function createClients(config: GcpConfig): Clients {
  const options = clientOptions(config);
  return {
    instances: new InstancesClient(options),
    operations: new ZoneOperationsClient(options),
    machineTypes: new MachineTypesClient(options),
    disks: new DisksClient(options),
    images: new ImagesClient(options),
  };
}

export async function closeClients(clients: Clients): Promise<void> {
  await Promise.all([
    clients.instances.close(),
    clients.operations.close(),
    clients.machineTypes.close(),
    clients.disks.close(),
    clients.images.close(),
  ]);
}

/** The client takes host and port apart; given together it would go to port 443. */
function address(url: URL) {
  const plain = url.protocol === 'http:';
  return {
    apiEndpoint: url.hostname,
    port: Number(url.port || (plain ? 80 : 443)),
    protocol: plain ? 'http' : 'https',
    // Nothing secret goes over a plain connection.
    ...(plain ? { authClient: new PassThroughClient() } : {}),
  };
}
