/** gRPC clients of agents: one target, our credentials, limits. */
import { isIP } from 'node:net';
import type { AgentClient } from '../gen/infralet/agent/v1/Agent.ts';
import { largestReply, MESSAGE_OVERHEAD } from '../rpc/agent-protocol.ts';
import { type AgentPackage, loadAgent } from '../rpc/load.ts';
import type { AgentCredentials } from './credentials.ts';

export interface AgentAddress {
  readonly host: string;
  readonly port: number;
}

/** Larger than the default 64 KiB: over a slow, emulated NIC the default window would be the bandwidth's limit. */
const WINDOW_BYTES = 1024 * 1024;

export type ClientFactory = (address: AgentAddress, credentials: AgentCredentials) => AgentClient;

/** Loads the service definition once, at the first client. */
export function clientFactory(maxMessage: number): ClientFactory {
  let definition: AgentPackage | undefined;
  return (address, credentials) => {
    definition ??= loadAgent();
    return new definition.Agent(target(address), credentials, {
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

function target({ host, port }: AgentAddress): string {
  const family = isIP(host);
  if (family === 6) return `ipv6:[${host}]:${port}`;
  return family === 4 ? `ipv4:${host}:${port}` : `dns:${host}:${port}`;
}
