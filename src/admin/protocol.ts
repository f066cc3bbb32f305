/** The admin service's definition and the place of its socket. */
import { dirname, join } from 'node:path';
import { type GrpcObject, loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import type { ProtoGrpcType } from '../gen/admin.ts';
import { PROTO_DIR } from '../rpc/load.ts';
import { PROTO_OPTIONS } from '../rpc/proto-options.ts';

export type AdminPackage = ProtoGrpcType['infralet']['admin']['v1'];

export function loadAdmin(): AdminPackage {
  const packages: GrpcObject = loadPackageDefinition(loadSync(join(PROTO_DIR, 'admin/v1/admin.proto'), PROTO_OPTIONS));
  return (packages as unknown as ProtoGrpcType).infralet.admin.v1;
}

/** Beside the CRI's socket, so that one setting places both. */
export function adminSocket(criSocket: string): string {
  return join(dirname(criSocket), 'admin.sock');
}
