/**
 * TLS handshakes with a peer that may not be there yet. A port forwarder (QEMU's user network, a cloud's proxy) accepts
 * for a machine that is still booting and stays silent, and a new connection gets through much sooner than the old one's
 * retransmissions; but a slow peer must not be cut off while it is about to answer. So silent connections are joined by
 * further ones, and the first that is through wins.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import { type SecureContext, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { InfraletError } from '../base/errors.ts';

export interface HandshakeTimes {
  /** A connection without an answer for this long is joined by another one; milliseconds. */
  readonly firstByteMs: number;
  /** For the whole handshake; generous, since an emulated machine is slow; milliseconds. */
  readonly handshakeMs: number;
}

/** Connections to one silent peer at once; more would only queue at its door. */
const MAX_ATTEMPTS = 20;

/**
 * Resolves with the first connection whose handshake is through; who the peer is, the caller has to check.
 * Rejects with UNAVAILABLE when every attempt has failed or the time is over.
 */
export async function hedgedHandshake(
  first: Socket,
  secureContext: SecureContext,
  times: HandshakeTimes,
): Promise<TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>();
  const { remoteAddress: host = '', remotePort: port = 0 } = first;
  const open = new Map<Socket, TLSSocket>();
  const begin = (socket: Socket): void => {
    const tls = tlsConnect({
      socket,
      secureContext,
      ALPNProtocols: ['h2'],
      // The caller checks both, so that it can tell the reason.
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
    });
    open.set(socket, tls);
    const failed = (why: string, cause?: Error): void => {
      if (!open.delete(socket)) return;
      tls.destroy();
      if (open.size > 0) return;
      reject(new InfraletError('UNAVAILABLE', `no connection to the agent: ${why}`, { cause }));
    };
    tls.once('secureConnect', () => resolve(tls));
    tls.on('error', (error) => failed(error.message, error));
    tls.once('close', () => failed('the connection was closed during the handshake'));
  };
  begin(first);
  const spoken = (): boolean => [...open.keys()].some(({ bytesRead }) => bytesRead > 0);
  let attempts = 1;
  // Each pause is longer than the one before: a machine that is only slow must not be buried in handshakes.
  const again = (): void => {
    if (!spoken() && attempts < MAX_ATTEMPTS) {
      attempts += 1;
      begin(connectTcp({ host, port, noDelay: true }));
    }
    hedge = setTimeout(again, (times.firstByteMs * (attempts + 1)) / 2);
  };
  let hedge = setTimeout(again, times.firstByteMs);
  const whole = setTimeout(() => {
    reject(
      new InfraletError(
        'UNAVAILABLE',
        `the agent does not answer yet: no TLS handshake within ${times.handshakeMs} ms`,
      ),
    );
  }, times.handshakeMs);
  let winner: TLSSocket | undefined;
  try {
    winner = await promise;
    return winner;
  } finally {
    clearTimeout(hedge);
    clearTimeout(whole);
    for (const tls of open.values()) if (tls !== winner) tls.destroy();
    open.clear();
  }
}
