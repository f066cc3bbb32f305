/** A CRI client for the command line: calls by method name, typed by the method. */
import { credentials, type MethodDefinition } from '@grpc/grpc-js';
import { type CallLimits, callUnary } from '../admin/unary.ts';
import { InfraletError } from '../base/errors.ts';
import type { CriMethod, CriRequest, CriResponseFull } from '../rpc/cri.ts';
import { loadCri } from '../rpc/load.ts';

export interface CriClient extends Disposable {
  call<M extends CriMethod>(method: M, request: CriRequest<M>, limits: CallLimits): Promise<CriResponseFull<M>>;
}

/** kubelet's own limit. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/** Connects with the first call. */
export function connectCri(socket: string): CriClient {
  const cri = loadCri();
  const options = { 'grpc.max_receive_message_length': MAX_MESSAGE_BYTES };
  const runtime = new cri.RuntimeService(`unix:${socket}`, credentials.createInsecure(), options);
  const methods = { ...cri.ImageService.service, ...cri.RuntimeService.service };
  return {
    call: async <M extends CriMethod>(method: M, request: CriRequest<M>, limits: CallLimits) => {
      const definition = methods[method] as unknown as MethodDefinition<CriRequest<M>, CriResponseFull<M>> | undefined;
      if (!definition) throw new InfraletError('UNIMPLEMENTED', `${method} is not a method of the CRI`);
      // The connection does not care which of the two services a method belongs to.
      return await callUnary(runtime, definition, request, limits);
    },
    [Symbol.dispose]: () => runtime.close(),
  };
}
