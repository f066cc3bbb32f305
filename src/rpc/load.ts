/**
 * Loads the service definitions from proto/ at run time. Each call reads and parses the files again (tens of
 * milliseconds for the CRI): callers load once and keep the result.
 */
import { join } from 'node:path';
import { type GrpcObject, loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import type { ProtoGrpcType as AgentProto } from '../gen/agent.ts';
import type { ProtoGrpcType as ContainerdProto } from '../gen/containers.ts';
import type { ProtoGrpcType as CriProto } from '../gen/runtime.ts';
import { PROTO_OPTIONS } from './proto-options.ts';

/** Where the .proto files lie: beside src in the repository and in the package alike. */
export const PROTO_DIR = join(import.meta.dirname, '..', '..', 'proto');

export type CriPackage = CriProto['runtime']['v1'];
export type ContainerdPackage = ContainerdProto['containerd']['services']['containers']['v1'];
export type AgentPackage = AgentProto['infralet']['agent']['v1'];

/** The CRI's two services: `RuntimeService` and `ImageService`, each a client class with its `service` definition. */
export function loadCri(): CriPackage {
  return (load('cri/v1/runtime.proto') as unknown as CriProto).runtime.v1;
}

/** The agent's service: `Agent`, a client class with its `service` definition. */
export function loadAgent(): AgentPackage {
  return (load('agent/v1/agent.proto') as unknown as AgentProto).infralet.agent.v1;
}

/** containerd's own store of containers: `Containers`, a client class with its `service` definition. */
export function loadContainerd(): ContainerdPackage {
  return (load('containerd/v1/containers.proto') as unknown as ContainerdProto).containerd.services.containers.v1;
}

function load(file: string): GrpcObject {
  return loadPackageDefinition(loadSync(join(PROTO_DIR, file), PROTO_OPTIONS));
}
