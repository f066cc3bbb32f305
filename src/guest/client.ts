/** gRPC clients of agents: one target, our credentials, limits. */
import { isIP } from 'node:net';
import { makeGenericClientConstructor } from '@grpc/grpc-js';
import type { AgentClient } from '../gen/infralet/agent/v1/Agent.ts';
import { CHUNK_BYTES, largestReply, MESSAGE_OVERHEAD } from '../rpc/agent-protocol.ts';
import { type AgentPackage, loadAgent } from '../rpc/load.ts';
import type { AgentCredentials } from './credentials.ts';

export interface AgentAddress {
  readonly host: string;
  readonly port: number;
}

/** Larger than the default 64 KiB: over a slow, emulated NIC the default window would be the bandwidth's limit. */
const WINDOW_BYTES = 1024 * 1024;

/** A message that says little. */
const SMALL = 64 * 1024;
/** A piece of a byte stream with its frame. */
const PIECE = CHUNK_BYTES + 1024;

/**
 * Bytes of the largest answer, by RPC; what is larger is not even parsed. Of two bytes a parser makes an object of hundreds.
 */
function answerLimits(maxAnswer: number): Readonly<Record<string, number>> {
  return { Tunnel: PIECE, ReadFile: PIECE, ReadLog: PIECE, Watch: maxAnswer, TakeSample: maxAnswer };
}

export type ClientFactory = (address: AgentAddress, credentials: AgentCredentials) => AgentClient;

/** Loads the service definition once, at the first client. */
export function clientFactory(maxMessage: number, maxAnswer: number): ClientFactory {
  let definition: AgentPackage['Agent'] | undefined;
  return (address, credentials) => {
    definition ??= limitedClient(loadAgent(), maxAnswer);
    return new definition(target(address), credentials, {
      'grpc.max_receive_message_length': largestReply(maxMessage),
      'grpc.max_send_message_length': maxMessage + MESSAGE_OVERHEAD,
      'grpc-node.flow_control_window': WINDOW_BYTES,
      // Repeating is the reconciler's business, and the retry buffer would hold whole tunnels.
      'grpc.enable_retries': 0,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2000,
      // Without a Watch nothing else would notice a machine that fell off the network.
      'grpc.keepalive_time_ms': 20_000,
      'grpc.keepalive_timeout_ms': 20_000,
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_channelz': 0,
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
    });
  };
}

function limitedClient({ Agent }: AgentPackage, maxAnswer: number): AgentPackage['Agent'] {
  const limits = answerLimits(maxAnswer);
  const service = Object.fromEntries(
    Object.entries(Agent.service).map(([rpc, method]) => {
      const limit = limits[rpc] ?? SMALL;
      const responseDeserialize = (bytes: Buffer): object => {
        // What is relayed is judged by whoever has asked, who knows how large it may be.
        if (rpc !== 'Call' && bytes.length > limit) {
          throw new Error(`the answer to ${rpc} has ${bytes.length} bytes, ${limit} are allowed`);
        }
        return method.responseDeserialize(bytes);
      };
      return [rpc, { ...method, responseDeserialize }];
    }),
  );
  return makeGenericClientConstructor(service, 'Agent') as unknown as AgentPackage['Agent'];
}

function target({ host, port }: AgentAddress): string {
  const family = isIP(host);
  if (family === 6) return `ipv6:[${host}]:${port}`;
  return family === 4 ? `ipv4:${host}:${port}` : `dns:${host}:${port}`;
}
