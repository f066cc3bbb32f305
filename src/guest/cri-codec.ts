/** Requests and answers of containerd's CRI to bytes and back, with the same definitions that our own server uses. */
import { errorMessage } from '../base/errors.ts';
import type { ContainerEventResponse__Output } from '../gen/runtime/v1/ContainerEventResponse.ts';
import type { CriMethod, CriRequest, CriResponseFull } from '../rpc/cri.ts';
import { loadCri } from '../rpc/load.ts';
import { misconduct } from './conduct.ts';
import { createSpecCodec, type SpecCodec } from './spec-codec.ts';

export interface CriCodec {
  /** containerd's own service for specifications, beside the CRI. */
  readonly specs: SpecCodec;
  encode<M extends CriMethod>(method: M, request: CriRequest<M>): { readonly path: string; readonly payload: Buffer };
  /** Throws DATA_LOSS on bytes that are no such message: they come from the guest. */
  decode<M extends CriMethod>(method: M, payload: Buffer): CriResponseFull<M>;
  decodeEvent(payload: Buffer): ContainerEventResponse__Output;
}

export function createCriCodec(maxAnswer: number): CriCodec {
  const { RuntimeService, ImageService } = loadCri();
  const methods = { ...RuntimeService.service, ...ImageService.service };
  const parse = <T>(what: string, work: () => T): T => {
    try {
      return work();
    } catch (error) {
      throw misconduct('DATA_LOSS', `the agent sent no valid ${what}: ${errorMessage(error)}`);
    }
  };
  return {
    specs: createSpecCodec(),
    encode: (method, request) => {
      const definition = methods[method];
      // One method's request type cannot be told to a union of all methods.
      const serialize = definition.requestSerialize as (value: unknown) => Buffer;
      return { path: definition.path, payload: serialize(request) };
    },
    decode: <M extends CriMethod>(method: M, payload: Buffer) => {
      // An exec's two outputs are as large as they are, and cost no more when they are parsed.
      if (method !== 'ExecSync' && payload.length > maxAnswer) {
        const sizes = `${payload.length} bytes, ${maxAnswer} are allowed (guest.maxAnswer)`;
        throw misconduct('RESOURCE_EXHAUSTED', `the answer to ${method} has ${sizes}`);
      }
      return parse(`${method} response`, () => methods[method].responseDeserialize(payload) as CriResponseFull<M>);
    },
    decodeEvent: (payload) =>
      parse('container event', () => RuntimeService.service.GetContainerEvents.responseDeserialize(payload)),
  };
}
