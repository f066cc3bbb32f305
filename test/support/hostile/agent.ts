/**
 * An agent that enrols as it should, over the real protocol, and then does what a test wants it to: by default what an honest
 * one does, for a containerd that is a record in memory.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Server, ServerCredentials, type ServerWritableStream, type sendUnaryData, status } from '@grpc/grpc-js';
import { Door } from '../../../src/agent/door.ts';
import { Identity } from '../../../src/agent/identity.ts';
import { type Listener, listen } from '../../../src/agent/listener.ts';
import { RefusalLog } from '../../../src/agent/log.ts';
import { parseUserData } from '../../../src/agent/user-data.ts';
import { InfraletError } from '../../../src/base/errors.ts';
import type { AgentHandlers } from '../../../src/gen/infralet/agent/v1/Agent.ts';
import type { CriMethod } from '../../../src/rpc/cri.ts';
import { loadAgent, loadContainerd, loadCri } from '../../../src/rpc/load.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { FakeGuest } from '../fake-guest.ts';

const { RuntimeService, ImageService } = loadCri();
const METHODS = { ...RuntimeService.service, ...ImageService.service };

/** containerd's answer about the specification of any container. */
const SPEC = loadContainerd().Containers.service.Get.responseSerialize({
  container: {
    spec: {
      typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Spec',
      value: Buffer.from('{"process":{"user":{"uid":0,"gid":0}}}'),
    },
  },
});

/** What it does instead of what it should; gets the honest handlers to fall back on. */
export type Lies = (
  agent: LyingAgent,
  honest: AgentHandlers,
) => { readonly [Rpc in keyof AgentHandlers]?: AgentHandlers[Rpc] };

export class LyingAgent implements AsyncDisposable {
  readonly guest = new FakeGuest('image-1');
  readonly identity: Identity;
  readonly #stack = new AsyncDisposableStack();
  readonly #directory = mkdtempSync(join(tmpdir(), 'infralet-liar-'));
  #listener: Listener | undefined;
  readonly #sockets = new Set<Socket>();
  readonly #armed = Promise.withResolvers<void>();
  port = 0;

  private constructor(userData: string) {
    this.identity = new Identity(parseUserData(userData), this.#directory);
    this.#stack.defer(() => rmSync(this.#directory, { recursive: true }));
  }

  static async start(userData: string, lies: Lies = () => ({})): Promise<LyingAgent> {
    const agent = new LyingAgent(userData);
    const refusals = new RefusalLog(nullLogger);
    const door = await Door.open('127.0.0.1', 0, refusals);
    agent.port = door.port;
    const server = new Server({ 'grpc.max_send_message_length': -1, 'grpc.max_receive_message_length': -1 });
    const honest = agent.#honest();
    const handlers: AgentHandlers = Object.assign(honest, lies(agent, { ...honest }));
    server.addService(loadAgent().Agent.service, handlers);
    const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
    agent.#listener = listen({
      door,
      cluster: 'default',
      credentials: agent.identity.credentials,
      refusals,
      onConnection: (socket) => {
        agent.#sockets.add(socket);
        socket.once('close', () => agent.#sockets.delete(socket));
        injector.injectConnection(socket);
      },
    });
    agent.#stack.defer(() => {
      server.forceShutdown();
      // Its port stays; nobody is let in any more.
      door.serve((socket) => void socket.destroy());
    });
    return agent;
  }

  #honest(): AgentHandlers {
    const quiet = (_call: unknown, done: sendUnaryData<object>): void => done(null, {});
    const held = (): void => undefined;
    return {
      Enrol: (call, done) => done(null, this.identity.enrol(call.request.nonce)),
      Install: (call, done) => {
        this.#listener?.use(this.identity.install(call.request.chain));
        done(null, {});
      },
      Renew: (_call, done) => done(null, { csr: this.identity.renew() }),
      Status: (_call, done) =>
        done(null, {
          agentVersion: '1',
          imageDigest: 'image-1',
          clockNanos: String(BigInt(Date.now()) * 1_000_000n),
          uptimeMs: '1000',
        }),
      Call: (call, done) => {
        const method = call.request.method.split('/').at(-1) as CriMethod;
        if (call.request.method.startsWith('/containerd.')) {
          done(null, { payload: SPEC });
          return;
        }
        try {
          done(null, { payload: this.answer(method, call.request.payload) });
        } catch (error) {
          const { code, message } = InfraletError.from(error);
          done({ code: status[code], details: message });
        }
      },
      Watch: (call) => {
        const beat = (): void => void call.write({ heartbeat: { clockNanos: '1', agentResidentBytes: '1' } });
        const timer = setInterval(beat, Number(call.request.heartbeatMs)).unref();
        call.once('cancelled', () => clearInterval(timer));
      },
      TakeSample: (_call, done) => done(null, this.guest.sample()),
      Tunnel: (call) => call.end(),
      Incoming: held,
      PutFiles: (call, done) => {
        call.resume();
        call.once('end', () => done(null, { path: '/run/volumes/x' }));
      },
      Mount: (_call, done) => done(null, { path: '/run/volumes/x' }),
      RemoveFiles: quiet,
      ReadFile: (call) => call.end(),
      SignalContainer: quiet,
      MakeLog: quiet,
      ReadLog: held,
      TrimLog: quiet,
      RemoveLog: quiet,
      Configure: (_call, done) =>
        done(null, {
          machine: { imageDigest: 'image-1', clockNanos: String(BigInt(Date.now()) * 1_000_000n), uptimeMs: '1000' },
        }),
      Rehearse: quiet,
      RenewLease: quiet,
    };
  }

  /** From now on it does its worst. */
  arm(): void {
    this.#armed.resolve();
  }

  /** Behaves until it is armed. */
  get armed(): Promise<void> {
    return this.#armed.promise;
  }

  /** Breaks all connections, and shows the other's certificate from then on. */
  impersonate({ identity }: LyingAgent): void {
    this.#listener?.use(identity.credentials);
    for (const socket of this.#sockets) socket.destroy();
  }

  /** containerd's answer as bytes. */
  answer(method: CriMethod, payload: Buffer): Buffer {
    const { requestDeserialize, responseSerialize } = METHODS[method];
    // One method's types cannot be told to a union of all methods.
    const request = requestDeserialize(payload) as unknown as Record<string, unknown>;
    return (responseSerialize as (value: unknown) => Buffer)(this.guest.call(method, request));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

/** Writes as fast as the other side takes it, until it takes no more. */
export function flood<T>(call: ServerWritableStream<unknown, T>, message: () => T): void {
  call.on('error', () => undefined);
  const more = (): void => {
    for (let n = 0; n < 1000 && !call.cancelled; n += 1) {
      if (!call.write(message())) {
        call.once('drain', more);
        return;
      }
    }
    if (!call.cancelled) setImmediate(more);
  };
  more();
}
