/** Server streams through the adapter, on a real connection. */
import { credentials, Server, ServerCredentials, type ServiceError, status } from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { InfraletError } from '../../src/base/errors.ts';
import { systemClock, until } from '../../src/base/time.ts';
import { type CallContext, serverStream } from '../../src/rpc/adapter.ts';
import { CallTracker } from '../../src/rpc/calls.ts';
import { loadCri } from '../../src/rpc/load.ts';
import { nullLogger } from '../../src/telemetry/log.ts';

interface Event {
  readonly containerId: string;
}

async function serve(handle: (request: object, context: CallContext) => AsyncIterable<Event>) {
  await using stack = new AsyncDisposableStack();
  const { RuntimeService } = loadCri();
  const calls = new CallTracker();
  const server = new Server();
  const adapter = { calls, clock: systemClock, log: nullLogger, slowMs: () => 1000 };
  server.addService(
    { GetContainerEvents: RuntimeService.service.GetContainerEvents },
    { GetContainerEvents: serverStream(adapter, 'GetContainerEvents', handle) },
  );
  const bound = Promise.withResolvers<number>();
  server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
    error ? bound.reject(error) : bound.resolve(port),
  );
  const client = new RuntimeService(`127.0.0.1:${await bound.promise}`, credentials.createInsecure());
  stack.defer(() => server.forceShutdown());
  stack.defer(() => client.close());
  const owned = stack.move();
  return { calls, client, [Symbol.asyncDispose]: async () => owned.disposeAsync() };
}

const soon = () => AbortSignal.timeout(10_000);

test('messages arrive in order, then OK', async () => {
  await using rpc = await serve(async function* () {
    for (let n = 0; n < 5000; n++) yield { containerId: `c${n}-${'x'.repeat(500)}` };
  });
  let count = 0;
  for await (const event of rpc.client.GetContainerEvents({})) {
    expect(event.containerId.startsWith(`c${count}-`)).toBe(true);
    count++;
  }
  expect(count).toBe(5000);
  expect(rpc.calls.size).toBe(0);
});

test('a client that reads no more stops the producer', async () => {
  let produced = 0;
  await using rpc = await serve(async function* () {
    for (;;) {
      produced++;
      yield { containerId: 'x'.repeat(10_000) };
    }
  });
  const call = rpc.client.GetContainerEvents({});
  call.on('error', () => undefined);
  // A client of grpc-js that never began to read would buffer without limit.
  call.once('data', () => call.pause());
  let last = -1;
  let still = 0;
  await until(
    () => {
      still = produced > 0 && produced === last ? still + 1 : 0;
      last = produced;
      return still >= 20 ? true : undefined;
    },
    { everyMs: 10, signal: soon() },
  );
  expect(produced).toBeLessThan(2000);
  call.cancel();
  await until(() => (rpc.calls.size === 0 ? true : undefined), { everyMs: 5, signal: soon() });
});

test('an error in the middle becomes the status', async () => {
  await using rpc = await serve(async function* () {
    yield { containerId: 'first' };
    throw new InfraletError('RESOURCE_EXHAUSTED', 'too slow a reader');
  });
  const seen: string[] = [];
  const read = async (): Promise<void> => {
    for await (const event of rpc.client.GetContainerEvents({})) seen.push(event.containerId);
  };
  await expect(read()).rejects.toMatchObject({ code: status.RESOURCE_EXHAUSTED, details: 'too slow a reader' });
  expect(seen).toEqual(['first']);
});

test('a drain ends streams at once, with UNAVAILABLE', async () => {
  const ended = Promise.withResolvers<void>();
  await using rpc = await serve(async function* (_request, { signal }) {
    try {
      yield { containerId: 'first' };
      const { promise, resolve } = Promise.withResolvers<void>();
      signal.addEventListener('abort', () => resolve());
      await promise;
    } finally {
      ended.resolve();
    }
  });
  const call = rpc.client.GetContainerEvents({});
  const failed = Promise.withResolvers<ServiceError>();
  call.on('error', (error: ServiceError) => failed.resolve(error));
  const first = Promise.withResolvers<void>();
  call.on('data', () => first.resolve());
  await first.promise;
  await rpc.calls.drain(60_000, systemClock);
  expect(await failed.promise).toMatchObject({ code: status.UNAVAILABLE });
  await ended.promise;
  const late = rpc.client.GetContainerEvents({});
  const refused = Promise.withResolvers<ServiceError>();
  late.on('error', (error: ServiceError) => refused.resolve(error));
  late.resume();
  expect(await refused.promise).toMatchObject({
    code: status.UNAVAILABLE,
    details: expect.stringContaining('shutting'),
  });
});
