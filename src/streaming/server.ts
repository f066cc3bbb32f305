/**
 * The node's exec, attach and port-forward server. A request with a valid token is passed on, head rewritten and bytes
 * untouched, to containerd's streaming server in the guest, SPDY and WebSocket alike. The two WebSocket subprotocols that
 * containerd refuses (protocols.ts) are turned into SPDY here.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ErrorCode, InfraletError } from '../base/errors.ts';
import { abortable } from '../base/keyed-lock.ts';
import { type Clock, withTimeout } from '../base/time.ts';
import type { Config } from '../config/schema.ts';
import type { Logger } from '../telemetry/log.ts';
import { Session } from './session.ts';
import {
  isStreamKind,
  type OpenStream,
  type StreamingUrls,
  type StreamKind,
  type StreamTarget,
  TokenTable,
} from './tokens.ts';

/** Request heads longer than this are refused; SPDY and WebSocket requests need less than 2 KiB. */
const MAX_HEAD_BYTES = 16 * 1024;
/** A connection has this long to send its head. */
const HEAD_TIMEOUT_MS = 10_000;
/** The guest has this long to open the other end. */
const OPEN_TIMEOUT_MS = 30_000;

/** A silent client is asked by TCP whether it is still there after this long. */
const KEEP_ALIVE_MS = 60_000;

const PROTOCOLS: readonly string[] = ['spdy/3.1', 'websocket'];
const NEEDS_UPGRADE = 'exec, attach and port-forward need an upgrade to SPDY/3.1 or WebSocket';

export interface StreamingServer extends StreamingUrls, AsyncDisposable {
  /** "http://address:port". */
  readonly base: string;
  /** Sessions in progress. */
  readonly sessions: number;
}

export interface StreamingOptions {
  readonly config: Config['streaming'];
  readonly log: Logger;
  readonly clock: Clock;
}

/** Resolves when it listens. Disposing cuts all sessions. */
export async function createStreamingServer(options: StreamingOptions): Promise<StreamingServer> {
  const { config, clock } = options;
  const log = options.log.child({ component: 'streaming' });
  const tokens = new TokenTable({ clock, ttlMs: config.tokenTtl, most: config.maxTokens });
  const sessions = new Set<Session>();
  const http = createServer({
    maxHeaderSize: MAX_HEAD_BYTES,
    headersTimeout: HEAD_TIMEOUT_MS,
    requestTimeout: HEAD_TIMEOUT_MS,
    connectionsCheckingInterval: HEAD_TIMEOUT_MS / 4,
    keepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE_MS,
  });
  http.maxConnections = config.maxSessions;
  http.on('request', (_request, response) => {
    response.writeHead(400, { 'Content-Type': 'text/plain', Connection: 'close' });
    response.end(`${NEEDS_UPGRADE}\n`);
  });
  http.on('upgrade', (request, client, head) => {
    if (!PROTOCOLS.includes(String(request.headers.upgrade).toLowerCase())) {
      refuse(client, 400, NEEDS_UPGRADE);
      return;
    }
    const [, kind = '', token = ''] = /^\/([a-z]+)\/([A-Za-z0-9_-]+)(?:[?#].*)?$/.exec(request.url ?? '') ?? [];
    const open = tokens.take(kind, token);
    if (!open || !isStreamKind(kind)) {
      log.info('streaming URL refused', { kind });
      refuse(client, 404, 'this streaming URL is unknown, was used before or has expired');
      return;
    }
    const session = new Session({ kind, client, head, request, idleMs: config.idle, maxMessage: config.maxMessage });
    sessions.add(session);
    void serve(session, open, log.child({ kind })).finally(() => sessions.delete(session));
  });
  const base = await listen(http, config.address, config.port);
  log.info('serving exec, attach and port-forward', { base });
  return {
    base,
    get sessions() {
      return sessions.size;
    },
    issue: (kind: StreamKind, open: OpenStream) => `${base}/${kind}/${tokens.issue(kind, open)}`,
    [Symbol.asyncDispose]: async () => {
      tokens.clear();
      const { promise, resolve } = Promise.withResolvers<void>();
      http.close(() => resolve());
      http.closeAllConnections();
      await Promise.all([...sessions].map(async (session) => session.end()));
      await promise;
    },
  };
}

async function serve(session: Session, open: OpenStream, log: Logger): Promise<void> {
  log.debug('session started');
  try {
    await session.run(await opened(session, open));
    log.debug('session ended', { ...session.counts() });
  } catch (error) {
    const failure = InfraletError.from(session.gone.aborted ? session.gone.reason : error);
    log.info('session failed', { code: failure.code, reason: failure.message });
    refuse(session.client, HTTP_STATUS[failure.code] ?? 500, failure.message);
  }
}

/**
 * Like `open`, but obeys the signal even when `open` does not; what comes too late is closed. The connection lives by
 * the signal of its opening, so the time limit is taken off it once it is open.
 */
async function opened(session: Session, open: OpenStream): Promise<StreamTarget> {
  using signal = withTimeout(session.gone, OPEN_TIMEOUT_MS, 'the connection to the machine');
  const opening = open(signal);
  try {
    return await abortable(opening, signal);
  } catch (error) {
    opening.then(
      (late) => late.socket.destroy(),
      () => undefined,
    );
    throw error;
  }
}

const HTTP_STATUS: Readonly<Partial<Record<ErrorCode, number>>> = {
  NOT_FOUND: 404,
  INVALID_ARGUMENT: 400,
  FAILED_PRECONDITION: 409,
  RESOURCE_EXHAUSTED: 503,
  UNAVAILABLE: 502,
  DEADLINE_EXCEEDED: 504,
};

const REASONS: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  404: 'Not Found',
  409: 'Conflict',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
};

/** Answers a request whose connection node:http has already handed over. */
function refuse(client: Duplex, status: number, problem: string): void {
  if (client.destroyed || !client.writable) return;
  const body = Buffer.from(`${problem}\n`);
  client.on('error', () => client.destroy());
  client.end(
    Buffer.concat([
      Buffer.from(
        `HTTP/1.1 ${status} ${REASONS[status] ?? 'Error'}\r\nContent-Type: text/plain; charset=utf-8\r\n` +
          `Content-Length: ${body.length}\r\nConnection: close\r\n\r\n`,
      ),
      body,
    ]),
    () => client.destroy(),
  );
}

async function listen(http: Server, address: string, port: number): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  http.once('error', reject);
  http.listen({ host: address, port }, resolve);
  try {
    await promise;
  } catch (error) {
    throw new InfraletError('FAILED_PRECONDITION', `the streaming server cannot listen on ${address}:${port}`, {
      hint: 'set streaming.address and streaming.port to something free on this node',
      cause: error,
    });
  }
  http.off('error', reject);
  const bound = http.address() as AddressInfo;
  const host = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
  return `http://${host}:${bound.port}`;
}
