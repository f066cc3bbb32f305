/** A reader of GetContainerEvents who reads when told to. */
import { once } from 'node:events';
import { type ClientReadableStream, credentials, type ServiceError } from '@grpc/grpc-js';
import { until } from '../../src/base/time.ts';
import type { ContainerEventResponse__Output } from '../../src/gen/runtime/v1/ContainerEventResponse.ts';
import { loadCri } from '../../src/rpc/load.ts';

export class EventReader implements Disposable {
  readonly events: ContainerEventResponse__Output[] = [];
  readonly #client;
  readonly #call: ClientReadableStream<ContainerEventResponse__Output>;
  /** What the stream ended with. */
  error: ServiceError | undefined;

  private constructor(socket: string) {
    const { RuntimeService } = loadCri();
    this.#client = new RuntimeService(`unix:${socket}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    });
    this.#call = this.#client.GetContainerEvents({});
    this.#call.on('error', (error: ServiceError) => {
      this.error = error;
    });
  }

  /** Resolves when no event that comes from now on is missed. */
  static async open(socket: string, reading = true): Promise<EventReader> {
    const reader = new EventReader(socket);
    const begun = once(reader.#call, 'metadata');
    if (reading) reader.read();
    else reader.#call.pause();
    await begun;
    return reader;
  }

  read(): void {
    this.#call.on('data', (event: ContainerEventResponse__Output) => this.events.push(event));
    this.#call.resume();
  }

  /** The events of these ids, as soon as there are `count` of them. */
  async of(ids: readonly string[], count: number): Promise<readonly ContainerEventResponse__Output[]> {
    const known = () => this.events.filter(({ containerId }) => ids.includes(containerId));
    return await until(() => (known().length >= count ? known() : undefined), {
      everyMs: 10,
      signal: AbortSignal.timeout(20_000),
    });
  }

  [Symbol.dispose](): void {
    this.#call.cancel();
    this.#client.close();
  }
}
