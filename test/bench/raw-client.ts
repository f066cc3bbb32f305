/**
 * A CRI client that leaves answers as the bytes they came in. Decoding thousands of items takes this process longer
 * than making them takes the daemon, and a kubelet decodes them in its own language: here it is not the thing measured.
 */
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { passingBytes } from '../../src/base/passing-bytes.ts';
import type { CriRequest, CriUnaryMethod, RuntimeMethods } from '../../src/rpc/cri.ts';
import { loadCri } from '../../src/rpc/load.ts';

type Method = CriUnaryMethod & keyof RuntimeMethods;

const { service } = loadCri().RuntimeService;
/** This process is to pause as little as the kubelet's would. */
const notePassed = passingBytes(8 * 1024 * 1024);
const TIMEOUT_MS = 60_000;

export class RawClient implements Disposable {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': -1,
      'grpc.use_local_subchannel_pool': 1,
    });
  }

  async call<M extends Method>(method: M, request: CriRequest<M> & object): Promise<Buffer> {
    const { path, requestSerialize } = service[method];
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    this.#client.makeUnaryRequest<object, Buffer>(
      path,
      requestSerialize,
      (bytes) => bytes,
      request,
      new Metadata(),
      { deadline: Date.now() + TIMEOUT_MS },
      (error, answer = Buffer.alloc(0)) => (error ? reject(error) : resolve(answer)),
    );
    const answer = await promise;
    notePassed(answer.length);
    return answer;
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}
