/**
 * Which WebSocket subprotocols end on this node. containerd's streaming server knows neither of the two that today's clients
 * speak, but it knows what both stand for, in SPDY.
 */
import type { IncomingMessage } from 'node:http';
import type { StreamKind } from './tokens.ts';

/** Channels with a signal for the end of one of them; for exec and attach. */
const CHANNELS_V5 = 'v5.channel.k8s.io';
/** SPDY frames inside of binary messages; for port-forward. */
const TUNNELLED_PORTS = 'SPDY/3.1+portforward.k8s.io';

/** The subprotocol of a request that is answered here; undefined for requests that pass through untouched. */
export function ownProtocol(kind: StreamKind, request: IncomingMessage): string | undefined {
  if (String(request.headers.upgrade).toLowerCase() !== 'websocket') return undefined;
  const wanted = kind === 'portforward' ? TUNNELLED_PORTS : CHANNELS_V5;
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim());
  return offered.includes(wanted) ? wanted : undefined;
}
