/** The agent's gRPC service: the gate before every call, errors to statuses, cancellation to signals. */
import { Server, type ServerUnaryCall, type ServerWritableStream, type sendUnaryData } from '@grpc/grpc-js';
import { InfraletError } from '../base/errors.ts';
import type { AgentDefinition, AgentHandlers } from '../gen/infralet/agent/v1/Agent.ts';
import { largestReply, MESSAGE_OVERHEAD } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { configure } from './configure.ts';
import type { Containerd } from './containerd.ts';
import { toStatus } from './errors.ts';
import type { EventHub } from './events.ts';
import type { Credentials, Identity } from './identity.ts';
import type { IncomingQueue } from './incoming.ts';
import type { Interruptions } from './interruptions.ts';
import type { Lease } from './lease.ts';
import type { RefusalLog } from './log.ts';
import type { Logs } from './logs.ts';
import { notePassed } from './memory.ts';
import { mountVolume } from './mount.ts';
import { type AgentOptions, LIMITS } from './options.ts';
import { takeSandbox } from './pod-sandbox.ts';
import { putFiles, removeFiles, rootPath } from './put-files.ts';
import { readFile } from './read-file.ts';
import { readLog } from './read-log.ts';
import type { Relay } from './relay.ts';
import type { Sampler } from './sampler.ts';
import type { Shares } from './shares.ts';
import { signalContainer } from './signal.ts';
import { facts, type Phases, status } from './status.ts';
import type { Tunnels } from './tunnel.ts';
import { watch } from './watch.ts';

export interface AgentParts {
  readonly options: AgentOptions;
  readonly log: Logger;
  readonly refusals: RefusalLog;
  readonly identity: Pick<Identity, 'enrolled' | 'enrol' | 'renew' | 'install'>;
  readonly lease: Lease;
  readonly containerd: Containerd;
  readonly relay: Relay;
  readonly events: EventHub;
  readonly sampler: Sampler;
  readonly interruptions: Interruptions;
  readonly tunnels: Tunnels;
  readonly incoming: IncomingQueue;
  readonly shares: Shares;
  readonly phases: Phases;
  readonly logs: Logs;
  /** Warms up for a pod; once, however often it is asked for. */
  readonly rehearse: (container: boolean) => Promise<void>;
  /** A certificate was installed: handshakes from now on show it. */
  readonly onCredentials: (credentials: Credentials) => void;
  /** Fires when the agent ends. */
  readonly signal: AbortSignal;
}

/** What a stream handler needs of any of grpc-js' server streams. */
interface AnyStream {
  emit(event: 'error', status: ReturnType<typeof toStatus>): boolean;
  once(event: 'cancelled', listener: () => void): unknown;
}

export function createServer(parts: AgentParts, service: AgentDefinition, maxMessage: number): Server {
  const server = new Server({
    'grpc.max_receive_message_length': maxMessage + MESSAGE_OVERHEAD,
    'grpc.max_send_message_length': largestReply(maxMessage),
    'grpc.enable_channelz': 0,
  });
  server.addService(service, handlers(parts));
  return server;
}

function handlers(parts: AgentParts): AgentHandlers {
  const { identity, options } = parts;

  const gate = (rpc: string): void => {
    if (identity.enrolled) return;
    parts.refusals.refuse('a call before enrolment', { rpc });
    throw new InfraletError('FAILED_PRECONDITION', `${rpc} is refused: this machine has not enrolled yet`);
  };
  const unary =
    <In, Out>(
      rpc: string,
      work: (request: In, signal: AbortSignal, deadline: number) => Promise<Out> | Out,
      open = false,
    ) =>
    (call: ServerUnaryCall<In, Out>, callback: sendUnaryData<Out>): void => {
      const cancelled = new AbortController();
      call.once('cancelled', () => cancelled.abort());
      void Promise.try(async () => {
        if (!open) gate(rpc);
        return await work(call.request, cancelled.signal, Number(call.getDeadline()));
      }).then(
        (reply) => callback(null, reply),
        (error: unknown) => {
          if (open) parts.refusals.refuse(InfraletError.from(error).message, { rpc });
          callback(toStatus(error));
        },
      );
    };
  const stream = (rpc: string, call: AnyStream, work: () => void): void => {
    try {
      gate(rpc);
      work();
    } catch (error) {
      call.emit('error', toStatus(error));
    }
  };

  return {
    Enrol: unary('Enrol', (request) => identity.enrol(request.nonce), true),
    Install: unary(
      'Install',
      (request) => {
        const first = !identity.enrolled;
        parts.onCredentials(identity.install(request.chain));
        parts.log.info(first ? 'enrolled' : 'certificate renewed');
        return {};
      },
      true,
    ),
    Renew: unary('Renew', () => ({ csr: identity.renew() })),
    Status: unary('Status', () => status(options, parts.containerd, parts.phases)),
    Call: unary('Call', async (request, signal, deadline) => ({
      payload: await parts.relay.call(request.method, request.payload, deadline, signal),
    })),
    Watch: (call) =>
      stream('Watch', call, () => watch(call, parts.events, parts.sampler, parts.interruptions, parts.signal)),
    // On request the figures of what was written may be as old as they are: a walk would make the caller wait.
    TakeSample: unary('TakeSample', () => parts.sampler.take(LIMITS.sampleMaxMs)),
    Tunnel: (call) => stream('Tunnel', call, () => parts.tunnels.serve(call)),
    Incoming: (call) => stream('Incoming', call, () => parts.incoming.announceTo(call)),
    PutFiles: (call, callback) => {
      void Promise.try(async () => {
        gate('PutFiles');
        return { path: await putFiles(call, options.roots) };
      }).then(
        (reply) => callback(null, reply),
        (error: unknown) => callback(toStatus(error)),
      );
    },
    Mount: unary('Mount', (request, signal) => mountVolume(request, options, parts.shares, signal)),
    RemoveFiles: unary('RemoveFiles', (request) => {
      removeFiles(request, options.roots);
      return {};
    }),
    ReadFile: (call) =>
      stream('ReadFile', call, () => {
        const { root, path } = call.request;
        const limit = natural(call.request.limit, 'limit');
        void send(call, () => readFile(rootPath(options.roots, root), path, limit));
      }),
    SignalContainer: unary('SignalContainer', (request) => {
      signalContainer(request, options);
      return {};
    }),
    MakeLog: unary('MakeLog', async (request) => {
      await parts.logs.make(request.name, natural(request.bound, 'bound'), request.containerId);
      return {};
    }),
    ReadLog: (call) =>
      stream('ReadLog', call, () => {
        const { name } = call.request;
        const offset = natural(call.request.offset, 'offset');
        void send(call, (signal) => readLog(parts.logs, name, offset, signal));
      }),
    TrimLog: unary('TrimLog', (request) => {
      parts.logs.trim(request.name, natural(request.offset, 'offset'));
      return {};
    }),
    RemoveLog: unary('RemoveLog', (request) => {
      parts.logs.remove(request.name);
      return {};
    }),
    Configure: unary('Configure', async (request) => {
      const since = performance.now();
      await configure(request, options);
      const sandboxId = request.podSandbox ? await takeSandbox(request.podSandbox, options) : '';
      if (request.clockNanos === '0') return { sandboxId };
      const handledUs = Math.round((performance.now() - since) * 1000);
      return { sandboxId, machine: { ...facts(options, parts.phases), handledUs } };
    }),
    Rehearse: unary('Rehearse', async (request) => {
      await parts.rehearse(request.container);
      return {};
    }),
    RenewLease: unary('RenewLease', ({ durationMs }) => {
      parts.lease.renew(natural(durationMs, 'duration_ms'));
      return {};
    }),
  };
}

/** Writes a generator's chunks at the pace at which the stream takes them. */
async function send<Chunk extends { readonly data: Buffer }>(
  call: ServerWritableStream<unknown, Chunk>,
  chunks: (signal: AbortSignal) => AsyncIterable<Chunk>,
): Promise<void> {
  const cancelled = new AbortController();
  let drained = Promise.withResolvers<void>();
  call.once('cancelled', () => cancelled.abort());
  call.on('drain', () => drained.resolve());
  cancelled.signal.addEventListener('abort', () => drained.resolve(), { once: true });
  try {
    for await (const chunk of chunks(cancelled.signal)) {
      drained = Promise.withResolvers<void>();
      notePassed(chunk.data.length);
      if (!call.write(chunk)) await drained.promise;
      if (cancelled.signal.aborted) return;
    }
    call.end();
  } catch (error) {
    call.emit('error', toStatus(error));
  }
}

function natural(text: string, name: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new InfraletError('INVALID_ARGUMENT', `${name} must be a natural number, not ${text}`);
}
