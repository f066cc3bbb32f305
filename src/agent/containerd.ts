/** containerd's CRI socket in this machine: calls and one stream, as bytes; nothing is decoded on the way. */
import { Client, type ClientReadableStream, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { InfraletError } from '../base/errors.ts';
import { systemClock } from '../base/time.ts';
import { largestReply, MESSAGE_OVERHEAD } from '../rpc/agent-protocol.ts';
import { LIMITS } from './options.ts';
import type { Phases } from './status.ts';

export interface Containerd extends Disposable {
  /** One unary RPC. Rejects with containerd's own status (`code`, `details`). `deadline` is absolute, milliseconds. */
  call(method: string, payload: Buffer, deadline: number, signal: AbortSignal): Promise<Buffer>;
  stream(method: string, payload: Buffer): ClientReadableStream<Buffer>;
  /** Resolves when the socket accepts connections. */
  ready(deadlineMs: number): Promise<void>;
}

/** The CRI's containers within containerd; the CRI itself does not need it. */
const NAMESPACE = 'k8s.io';

const identity = (bytes: Buffer): Buffer => bytes;

export function connectContainerd(socket: string, maxMessage: number): Containerd {
  const client = new Client(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': largestReply(maxMessage),
    'grpc.max_send_message_length': maxMessage + MESSAGE_OVERHEAD,
    // containerd starts beside the agent: look again soon, and often; a refused unix socket costs nothing.
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 250,
    'grpc.enable_retries': 0,
    'grpc.enable_channelz': 0,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.default_authority': 'localhost',
  });
  const metadata = new Metadata();
  metadata.set('containerd-namespace', NAMESPACE);
  return {
    call: async (method, payload, deadline, signal) => {
      signal.throwIfAborted();
      const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
      const call = client.makeUnaryRequest(
        method,
        identity,
        identity,
        payload,
        metadata,
        { deadline },
        (error: ServiceError | null, reply?: Buffer) => {
          if (error) reject(error);
          else if (reply) resolve(reply);
          else reject(new InfraletError('INTERNAL', `containerd answered ${method} with nothing`));
        },
      );
      const cancel = (): void => call.cancel();
      signal.addEventListener('abort', cancel, { once: true });
      try {
        return await promise;
      } finally {
        signal.removeEventListener('abort', cancel);
      }
    },
    stream: (method, payload) => client.makeServerStreamRequest(method, identity, identity, payload),
    ready: async (deadlineMs) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      client.waitForReady(Date.now() + deadlineMs, (error) => (error ? reject(error) : resolve()));
      await promise;
    },
    [Symbol.dispose]: () => client.close(),
  };
}

/** Waits for containerd's first answer and notes it for the boot timeline. */
export async function noteContainerd(containerd: Containerd, phases: Phases, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await containerd.ready(LIMITS.probeMs);
      const deadline = Date.now() + LIMITS.probeMs;
      await containerd.call('/runtime.v1.RuntimeService/Version', Buffer.alloc(0), deadline, signal);
      phases.mark('containerd');
      return;
    } catch {
      await systemClock.sleep(LIMITS.resubscribeMs, signal).catch(() => undefined);
    }
  }
}
