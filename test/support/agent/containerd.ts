/** A small real CRI server on a unix socket: stands in for containerd, which this host does not have. */
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import {
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import type { ContainerEventResponse } from '../../../src/gen/runtime/v1/ContainerEventResponse.ts';
import type { ExecSyncRequest__Output } from '../../../src/gen/runtime/v1/ExecSyncRequest.ts';
import type { ExecSyncResponse } from '../../../src/gen/runtime/v1/ExecSyncResponse.ts';
import type { StopContainerRequest__Output } from '../../../src/gen/runtime/v1/StopContainerRequest.ts';
import { loadCri } from '../../../src/rpc/load.ts';

type Events = ServerWritableStream<unknown, ContainerEventResponse>;

export class FakeContainerd implements AsyncDisposable {
  readonly socket: string;
  #server: Server | undefined;
  #subscriber: Events | undefined;
  #subscribed = Promise.withResolvers<void>();
  subscriptions = 0;
  readonly stopped: { readonly id: string; readonly seconds: number }[] = [];
  /** Calls of ExecSync that were cancelled, by container id. */
  readonly cancelled: string[] = [];
  running: readonly string[] = [];

  constructor(socket: string) {
    this.socket = socket;
  }

  async start(): Promise<this> {
    const { RuntimeService, ImageService } = loadCri();
    const server = new Server({
      'grpc.max_receive_message_length': 32 * 1024 * 1024,
      'grpc.max_send_message_length': 32 * 1024 * 1024,
    });
    server.addService(RuntimeService.service, {
      Version: (_call: unknown, done: sendUnaryData<unknown>) =>
        done(null, { version: '0.1.0', runtimeName: 'fake', runtimeVersion: 'v1', runtimeApiVersion: 'v1' }),
      ContainerStatus: (call: ServerUnaryCall<{ containerId: string }, unknown>, done: sendUnaryData<unknown>) =>
        done({ code: status.NOT_FOUND, details: `container ${call.request.containerId} not found in store` }),
      ListContainers: (_call: unknown, done: sendUnaryData<unknown>) =>
        done(null, {
          containers: [
            ...this.running.map((id) => ({ id, state: 'CONTAINER_RUNNING' })),
            { id: 'ended', state: 'CONTAINER_EXITED' },
          ],
        }),
      StopContainer: (call: ServerUnaryCall<StopContainerRequest__Output, unknown>, done: sendUnaryData<unknown>) => {
        this.stopped.push({ id: call.request.containerId, seconds: Number(call.request.timeout) });
        done(null, {});
      },
      ExecSync: (call: ServerUnaryCall<ExecSyncRequest__Output, ExecSyncResponse>, done: sendUnaryData<unknown>) => {
        const { containerId, cmd } = call.request;
        call.once('cancelled', () => this.cancelled.push(containerId));
        // "hang" never answers; "big N" answers with N bytes; everything else is echoed.
        if (cmd[0] === 'hang') return;
        const stdout = cmd[0] === 'big' ? Buffer.alloc(Number(cmd[1]), 0x61) : Buffer.from(cmd.join(' '));
        done(null, { stdout, stderr: Buffer.alloc(0), exitCode: 0 });
      },
      GetContainerEvents: (call: Events) => {
        this.subscriptions += 1;
        this.#subscriber = call;
        this.#subscribed.resolve();
      },
    });
    server.addService(ImageService.service, {});
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.bindAsync(`unix:${this.socket}`, ServerCredentials.createInsecure(), (error) =>
      error ? reject(error) : resolve(),
    );
    await promise;
    this.#server = server;
    return this;
  }

  /** Resolves when somebody listens to the events. */
  async subscribed(): Promise<void> {
    await this.#subscribed.promise;
  }

  async emit(event: ContainerEventResponse): Promise<void> {
    await this.subscribed();
    const stream = this.#subscriber;
    if (stream && !stream.write(event)) await once(stream, 'drain');
  }

  /** Ends like a killed process: connections cut, socket file gone. */
  stop(): void {
    this.#server?.forceShutdown();
    this.#subscribed = Promise.withResolvers();
    rmSync(this.socket, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
  }
}
