/** Names for the CRI's generated types that the rest of the code uses, and the methods by name. */

import type { MethodDefinition } from '@grpc/proto-loader';
import type { ImageServiceDefinition } from '../gen/runtime/v1/ImageService.ts';
import type { RuntimeServiceDefinition } from '../gen/runtime/v1/RuntimeService.ts';

/** The generated interfaces inherit an index signature, which would make every string a method: only real names stay. */
type Named<Definition> = {
  [M in keyof Definition as string extends M ? never : number extends M ? never : M]: Definition[M];
};

export type RuntimeMethods = Named<RuntimeServiceDefinition>;
export type ImageMethods = Named<ImageServiceDefinition>;
type CriMethods = RuntimeMethods & ImageMethods;

/** "RunPodSandbox", "PullImage", …: every RPC of both services. */
export type CriMethod = keyof CriMethods;
/** The RPCs that answer with a stream. */
export type CriStreamMethod = Extract<CriMethod, `Stream${string}` | 'GetContainerEvents'>;
export type CriUnaryMethod = Exclude<CriMethod, CriStreamMethod>;
/** What a client may leave out. */
export type CriRequest<M extends CriMethod> =
  CriMethods[M] extends MethodDefinition<infer In, infer _Out, infer _Full, infer _FullOut> ? In : never;
/** With all defaults filled in. */
export type CriRequestFull<M extends CriMethod> =
  CriMethods[M] extends MethodDefinition<infer _In, infer _Out, infer Full, infer _FullOut> ? Full : never;
export type CriResponse<M extends CriMethod> =
  CriMethods[M] extends MethodDefinition<infer _In, infer Out, infer _Full, infer _FullOut> ? Out : never;
export type CriResponseFull<M extends CriMethod> =
  CriMethods[M] extends MethodDefinition<infer _In, infer _Out, infer _Full, infer FullOut> ? FullOut : never;
