/**
 * The head of a streaming request as it continues to the server in the guest: method, protocol and headers as the client
 * sent them, with another path and host. Credentials of the cluster stay on the node.
 */
import { InfraletError } from '../base/errors.ts';

/** Headers that carry somebody's identity towards the kubelet; the guest has no business with them. */
const CREDENTIALS: readonly string[] = ['authorization', 'proxy-authorization', 'cookie'];
const IDENTITY = /^(x-remote-|impersonate-)/;
/** WebSocket clients in browsers put a bearer token here, since they cannot set headers. */
const BEARER_PROTOCOL = /^base64url\.bearer\.authorization\.k8s\.io\./i;

export interface IncomingHead {
  readonly method: string;
  /** Names and values in turn, as node:http has them. */
  readonly rawHeaders: readonly string[];
}

/** Throws UNAVAILABLE when the guest named a path or host that is none. */
export function continuedHead(head: IncomingHead, target: { readonly path: string; readonly host: string }): string {
  if (!/^\/[\x21-\x7e]*$/.test(target.path) || !/^[A-Za-z0-9.\-_:[\]]+$/.test(target.host)) {
    throw new InfraletError('UNAVAILABLE', 'the machine answered with a streaming URL that is none');
  }
  const lines = [`${head.method} ${target.path} HTTP/1.1`, `Host: ${target.host}`];
  let webSocket = false;
  let origin = false;
  for (let at = 0; at + 1 < head.rawHeaders.length; at += 2) {
    const name = head.rawHeaders[at] ?? '';
    const value = head.rawHeaders[at + 1] ?? '';
    const lower = name.toLowerCase();
    if (lower === 'host' || CREDENTIALS.includes(lower) || IDENTITY.test(lower)) continue;
    if (lower === 'upgrade' && value.toLowerCase() === 'websocket') webSocket = true;
    if (lower === 'origin') origin = true;
    const kept = lower === 'sec-websocket-protocol' ? withoutBearer(value) : value;
    if (kept !== '') lines.push(`${name}: ${kept}`);
    else if (value === '') lines.push(`${name}:`);
  }
  // Servers that check where a WebSocket comes from refuse it without an origin, which only browsers send.
  if (webSocket && !origin) lines.push(`Origin: http://${target.host}`);
  return `${lines.join('\r\n')}\r\n\r\n`;
}

function withoutBearer(protocols: string): string {
  return protocols
    .split(',')
    .map((protocol) => protocol.trim())
    .filter((protocol) => !BEARER_PROTOCOL.test(protocol))
    .join(', ');
}
