/** A typed CRI client over a unix socket: a promise method per unary RPC, every call with a deadline. */
import { type ChannelOptions, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import type { CriMethod, CriRequest, CriResponseFull, CriStreamMethod, CriUnaryMethod } from '../../src/rpc/cri.ts';
import { loadCri } from '../../src/rpc/load.ts';

export interface CriCallOptions {
  /** Milliseconds. @default 10_000 */
  readonly timeoutMs?: number;
  /** Sent along. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Cancels the call. */
  readonly signal?: AbortSignal;
}

type UnaryMethods = {
  readonly [M in CriUnaryMethod]: (request?: CriRequest<M>, options?: CriCallOptions) => Promise<CriResponseFull<M>>;
};
type StreamMethods = {
  readonly [M in CriStreamMethod]: (request?: CriRequest<M>, options?: CriCallOptions) => Promise<CriResponseFull<M>[]>;
};

/** Errors are grpc-js ServiceErrors: `code` (number) and `details`. Server streams resolve with all their messages. */
export type CriClient = UnaryMethods & StreamMethods & Disposable & { readonly socket: string };

export function criClient(socket: string, options: ChannelOptions = {}): CriClient {
  const { RuntimeService, ImageService } = loadCri();
  const clients = [RuntimeService, ImageService].map((Service) => ({
    names: Object.entries(Service.service),
    client: new Service(`unix:${socket}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': 64 * 1024 * 1024,
      'grpc.use_local_subchannel_pool': 1,
      ...options,
    }),
  }));
  const methods: Record<string, unknown> = {};
  for (const { names, client } of clients) {
    for (const [name, definition] of names) {
      methods[name] = async (request: object = {}, call: CriCallOptions = {}): Promise<unknown> => {
        const { promise, resolve, reject } = Promise.withResolvers<unknown>();
        const metadata = new Metadata();
        for (const [name, value] of Object.entries(call.headers ?? {})) metadata.set(name, value);
        const deadline = { deadline: Date.now() + (call.timeoutMs ?? 10_000) };
        const { path, requestSerialize: write, responseDeserialize: read } = definition;
        let active: { cancel(): void };
        if (definition.responseStream) {
          const stream = client.makeServerStreamRequest(path, write, read, request, metadata, deadline);
          const messages: unknown[] = [];
          stream.on('data', (message) => messages.push(message));
          stream.on('end', () => resolve(messages));
          stream.on('error', reject);
          active = stream;
        } else {
          const done = (error: ServiceError | null, response?: unknown): void =>
            error ? reject(error) : resolve(response);
          active = client.makeUnaryRequest(path, write, read, request, metadata, deadline, done);
        }
        const cancel = (): void => active.cancel();
        call.signal?.addEventListener('abort', cancel, { once: true });
        try {
          return await promise;
        } finally {
          call.signal?.removeEventListener('abort', cancel);
        }
      };
    }
  }
  const close = (): void => {
    for (const { client } of clients) client.close();
  };
  return Object.assign(methods, { socket, [Symbol.dispose]: close }) as unknown as CriClient;
}

/** Every RPC by name, for tables. */
export function criMethods(): readonly { readonly name: CriMethod; readonly stream: boolean }[] {
  const { RuntimeService, ImageService } = loadCri();
  return [RuntimeService, ImageService].flatMap((Service) =>
    Object.entries(Service.service).map(([name, method]) => ({
      name: name as CriMethod,
      stream: method.responseStream,
    })),
  );
}
