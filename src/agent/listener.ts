/**
 * The agent's port: TLS 1.3, client certificates of this machine's CA only, and among them only the daemon's.
 * gRPC sees a connection after all of that. Every refusal is logged with its reason.
 */
import type { Socket } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';
import { daemonUri, namesOnly } from '../rpc/agent-protocol.ts';
import type { Door } from './door.ts';
import type { Credentials } from './identity.ts';
import type { RefusalLog } from './log.ts';
import { LIMITS } from './options.ts';

export interface Listener {
  /** Later handshakes use these; connections that stand go on. */
  use(credentials: Credentials): void;
}

export function listen(options: {
  readonly door: Door;
  readonly cluster: string;
  readonly credentials: Credentials;
  readonly refusals: RefusalLog;
  readonly onConnection: (socket: TLSSocket) => void;
}): Listener {
  const { refusals } = options;
  const server = createServer({
    ...context(options.credentials),
    requestCert: true,
    // Decided in `stranger`: Node would drop the connection without telling anybody why.
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
    handshakeTimeout: LIMITS.handshakeMs,
    // A resumed session would skip the look at the client's certificate, which may have expired since.
    sessionTimeout: 1,
  });
  server.on('tlsClientError', (error: Error, socket: TLSSocket) => {
    const code = 'code' in error ? String(error.code) : '';
    refusals.refuse(HANDSHAKE_REASONS[code] ?? 'TLS handshake failed', {
      code,
      detail: error.message.slice(0, 200),
      peer: peer(socket),
    });
  });
  server.on('secureConnection', (socket: TLSSocket) => {
    socket.on('error', () => socket.destroy());
    const why = stranger(socket, options.cluster);
    if (why) {
      refusals.refuse(why, { peer: peer(socket), name: socket.getPeerCertificate().subjectaltname?.slice(0, 300) });
      socket.destroy();
      return;
    }
    options.onConnection(socket);
  });
  // TLS begins on connections that the door has taken.
  // Later ones show new credentials, made ready for them then: the daemon goes on over the connection that it has.
  let fresh: Credentials | undefined;
  options.door.serve((socket) => {
    if (fresh) server.setSecureContext(context(fresh));
    fresh = undefined;
    server.emit('connection', socket);
  });
  return {
    use: (credentials) => {
      fresh = credentials;
    },
  };
}

function context(credentials: Credentials): { key: string; cert: string; ca: string; minVersion: 'TLSv1.3' } {
  return { key: credentials.key, cert: credentials.chain, ca: credentials.ca, minVersion: 'TLSv1.3' };
}

/** Why this peer is not our daemon; undefined when it is. */
function stranger(socket: TLSSocket, cluster: string): string | undefined {
  const certificate = socket.getPeerX509Certificate();
  if (!certificate) return 'a stranger: no client certificate';
  if (!socket.authorized) {
    const error: unknown = socket.authorizationError;
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    return CHAIN_REASONS[code] ?? `wrong CA (${code})`;
  }
  return namesOnly(certificate.subjectAltName, daemonUri(cluster)) ? undefined : 'the certificate is not the daemon’s';
}

const CHAIN_REASONS: Readonly<Record<string, string>> = {
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'wrong CA',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'wrong CA',
  SELF_SIGNED_CERT_IN_CHAIN: 'wrong CA',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'wrong CA',
  CERT_SIGNATURE_FAILURE: 'wrong CA',
  CERT_HAS_EXPIRED: 'expired certificate',
  CERT_NOT_YET_VALID: 'certificate not valid yet; is the clock of this machine right?',
  INVALID_PURPOSE: 'the certificate is not for clients',
};

const HANDSHAKE_REASONS: Readonly<Record<string, string>> = {
  ERR_SSL_WRONG_VERSION_NUMBER: 'not TLS',
  ERR_SSL_HTTP_REQUEST: 'not TLS',
  ERR_SSL_UNSUPPORTED_PROTOCOL: 'TLS older than 1.3',
  ERR_TLS_HANDSHAKE_TIMEOUT: 'no handshake in time',
  ECONNRESET: 'the peer left during the handshake',
};

function peer(socket: Socket): string {
  return `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? 0}`;
}
