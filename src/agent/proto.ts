/**
 * The service definition: embedded by the bundler as a JSON descriptor, read from proto/ when run from source.
 * The bundler replaces the identifier; see src/guest-image/agent-bundle.ts.
 */
import { join } from 'node:path';
import { type GrpcObject, loadPackageDefinition } from '@grpc/grpc-js';
import { fromJSON, loadSync } from '@grpc/proto-loader';
import type { ProtoGrpcType } from '../gen/agent.ts';
import type { AgentDefinition } from '../gen/infralet/agent/v1/Agent.ts';
import { PROTO_OPTIONS } from '../rpc/proto-options.ts';

declare const INFRALET_AGENT_PROTO: Parameters<typeof fromJSON>[0] | undefined;
declare const INFRALET_VERSION: string | undefined;

export const VERSION = typeof INFRALET_VERSION === 'undefined' ? 'from source' : INFRALET_VERSION;

export function loadService(): AgentDefinition {
  const definition =
    typeof INFRALET_AGENT_PROTO === 'undefined'
      ? loadSync(join(import.meta.dirname, '..', '..', 'proto', 'agent', 'v1', 'agent.proto'), PROTO_OPTIONS)
      : fromJSON(INFRALET_AGENT_PROTO, PROTO_OPTIONS);
  const loaded: GrpcObject = loadPackageDefinition(definition);
  return (loaded as unknown as ProtoGrpcType).infralet.agent.v1.Agent.service;
}
