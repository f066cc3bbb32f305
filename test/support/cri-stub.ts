/** A CRI server on a unix socket whose answers a test gives; for the client side of the command line. */
import { Server, ServerCredentials, type ServiceError, status, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { errorMessage } from '../../src/base/errors.ts';
import type { CriMethod, CriRequestFull, CriResponse } from '../../src/rpc/cri.ts';
import { loadCri } from '../../src/rpc/load.ts';

type Answers = { readonly [M in CriMethod]?: (request: CriRequestFull<M>) => CriResponse<M> };

export interface CriStub extends AsyncDisposable {
  /** Names of the methods called, in order. */
  readonly calls: readonly string[];
}

export async function startCriStub(socket: string, answers: Answers): Promise<CriStub> {
  const calls: string[] = [];
  const handlers: UntypedServiceImplementation = {};
  for (const [name, answer] of Object.entries(answers) as [string, (request: unknown) => unknown][]) {
    handlers[name] = (
      call: { readonly request: unknown },
      reply: (error: Partial<ServiceError> | null, value?: unknown) => void,
    ) => {
      calls.push(name);
      try {
        reply(null, answer(call.request));
      } catch (error) {
        reply({ code: status.INTERNAL, details: errorMessage(error) });
      }
    };
  }
  const cri = loadCri();
  const server = new Server();
  server.addService(cri.RuntimeService.service, handlers);
  server.addService(cri.ImageService.service, handlers);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) =>
    error ? reject(error) : resolve(),
  );
  await promise;
  return {
    calls,
    [Symbol.asyncDispose]: async () => {
      server.forceShutdown();
    },
  };
}
