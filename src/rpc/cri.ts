/** Names for the CRI's generated types that the rest of the code uses, and the methods by name. */

import type { MethodDefinition } from '@grpc/proto-loader';
import type { ImageServiceDefinition } from '../gen/runtime/v1/ImageService.ts';
import type { RuntimeServiceDefinition } from '../gen/runtime/v1/RuntimeService.ts';

export type RuntimeMethods = Omit<RuntimeServiceDefinition, never>;
export type ImageMethods = Omit<ImageServiceDefinition, never>;
type CriMethods = RuntimeMethods & ImageMethods;

/** "RunPodSandbox", "PullImage", …: every RPC of both services. */
export type CriMethod = keyof CriMethods;
/** What a client may leave out. */
export type CriRequest<M extends CriMethod> =
  CriMethods[M] extends MethodDefinition<infer In, unknown, unknown, unknown> ? In : never;
/** With all defaults filled in. */
export type CriRequestFull<M extends CriMethod> =
  CriMethods[M] extends MethodDefinition<unknown, unknown, infer Full, unknown> ? Full : never;
export type CriResponse<M extends CriMethod> =
  CriMethods[M] extends MethodDefinition<unknown, infer Out, unknown, unknown> ? Out : never;
export type CriResponseFull<M extends CriMethod> =
  CriMethods[M] extends MethodDefinition<unknown, unknown, unknown, infer Full> ? Full : never;
