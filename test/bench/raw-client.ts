/**
 * A CRI client that counts the bytes of answers and drops them. Decoding thousands of items, even just collecting them,
 * takes this process longer than making them takes the daemon; a kubelet does that in its own language and with its
 * own garbage: here it is not the thing measured.
 */
import { once } from 'node:events';
import { type ClientHttp2Session, connect } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { passingBytes } from '../../src/base/passing-bytes.ts';
import type { CriRequest, CriUnaryMethod, RuntimeMethods } from '../../src/rpc/cri.ts';
import { loadCri } from '../../src/rpc/load.ts';

type Method = CriUnaryMethod & keyof RuntimeMethods;

/** What grpc-go's client grows its window to on a fast line. */
const WINDOW = 4 * 1024 * 1024;
const PREFIX = 5;
const notePassed = passingBytes(1024 * 1024);
const { service } = loadCri().RuntimeService;

export class RawClient implements Disposable {
  readonly #session: ClientHttp2Session;

  private constructor(session: ClientHttp2Session) {
    this.#session = session;
  }

  static async open(socket: string): Promise<RawClient> {
    const session = connect('http://localhost', {
      createConnection: () => connectSocket(socket),
      settings: { initialWindowSize: WINDOW },
    });
    await once(session, 'connect');
    session.setLocalWindowSize(WINDOW);
    return new RawClient(session);
  }

  /** The length of the answer, bytes. */
  async call<M extends Method>(method: M, request: CriRequest<M> & object): Promise<number> {
    const { path, requestSerialize } = service[method];
    const message = requestSerialize(request);
    const frame = Buffer.alloc(PREFIX + message.length);
    frame.writeUInt32BE(message.length, 1);
    message.copy(frame, PREFIX);
    const stream = this.#session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    let bytes = 0;
    let status: unknown;
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      notePassed(chunk.length);
    });
    stream.on('trailers', (trailers) => {
      status = trailers['grpc-status'];
    });
    // Where there is nothing but a failure, it comes with the headers.
    stream.on('response', (headers) => {
      status = headers['grpc-status'];
    });
    stream.end(frame);
    await once(stream, 'end');
    if (status !== '0') throw new Error(`${method}: gRPC status ${String(status)}`);
    return bytes - PREFIX;
  }

  [Symbol.dispose](): void {
    this.#session.destroy();
  }
}
