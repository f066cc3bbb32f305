/**
 * TLS towards one agent, as gRPC channel credentials. grpc-js' own TLS credentials hold one certificate for ever and
 * report a refused peer as a line of text; here every handshake takes the daemon's current certificate, and what was
 * wrong with the peer is kept as an error with a code.
 */
import type { Socket } from 'node:net';
import { createSecureContext, type TLSSocket } from 'node:tls';
import { CallCredentials, ChannelCredentials } from '@grpc/grpc-js';
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { NodePki } from '../pki/authority.ts';
import { namesOnly } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { type HandshakeTimes, hedgedHandshake } from './handshake.ts';

type SecureConnector = ReturnType<ChannelCredentials['_createSecureConnector']>;

/** The peer that stood at the other end of the last handshake. */
export interface Peer {
  /** Its public key, SubjectPublicKeyInfo in DER. */
  readonly spki: Buffer;
  /** End of its certificate, milliseconds since the epoch. */
  readonly notAfter: number;
}

export class AgentCredentials extends ChannelCredentials {
  readonly #pki: NodePki;
  /** The only name that the agent may have, or undefined: any key is let in, and enrolment has to prove the rest. */
  #uri: string | undefined;
  readonly #times: HandshakeTimes;
  readonly #log: Logger;
  /** Why the last peer was refused; undefined when there was none or it was accepted. */
  refusal: InfraletError | undefined;
  peer: Peer | undefined;

  constructor(pki: NodePki, uri: string | undefined, times: HandshakeTimes, log: Logger) {
    super();
    this.#pki = pki;
    this.#uri = uri;
    this.#times = times;
    this.#log = log;
  }

  /** From now on only this name is let in: the peer has enrolled. The connection that stands is not looked at again. */
  expect(uri: string): void {
    this.#uri = uri;
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(
    _target: Parameters<ChannelCredentials['_createSecureConnector']>[0],
    _options: Parameters<ChannelCredentials['_createSecureConnector']>[1],
    callCredentials?: Parameters<ChannelCredentials['_createSecureConnector']>[2],
  ): SecureConnector {
    return {
      connect: async (socket) => ({ socket: await this.#handshake(socket), secure: true }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => callCredentials ?? CallCredentials.createEmpty(),
      destroy: () => undefined,
    };
  }

  async #handshake(socket: Socket): Promise<TLSSocket> {
    const client = await this.#pki.client();
    const secureContext = createSecureContext({
      ca: this.#pki.ca,
      key: client.key,
      cert: client.certificate,
      minVersion: 'TLSv1.3',
    });
    try {
      const tls = await hedgedHandshake(socket, secureContext, this.#times);
      try {
        this.#watchVerdict(tls);
        this.#check(tls);
        return tls;
      } catch (error) {
        tls.destroy();
        throw error;
      }
    } catch (error) {
      if (error instanceof InfraletError && error.code === 'PERMISSION_DENIED') this.#refuse(error);
      throw error;
    }
  }

  /** In TLS 1.3 the server judges our certificate after the client's handshake is done: its verdict is an alert. */
  #watchVerdict(tls: TLSSocket): void {
    tls.on('error', (error: Error) => {
      if (!('code' in error) || !/^ERR_SSL_.*ALERT/.test(String(error.code))) return;
      this.#refuse(
        new InfraletError('PERMISSION_DENIED', `the agent refuses this daemon: ${String(error.code)}`, {
          cause: error,
          hint: 'the machine trusts another CA (was the state directory replaced?) or its clock is wrong; replace it',
        }),
      );
    });
  }

  #refuse(error: InfraletError): void {
    this.refusal = error;
    this.#log.warn('refused', { reason: error.message, ...error.context });
  }

  #check(tls: TLSSocket): void {
    const certificate = tls.getPeerCertificate();
    if (tls.alpnProtocol !== 'h2' || certificate.raw === undefined) throw refused('it does not speak gRPC over TLS');
    if (this.#uri !== undefined) {
      if (!tls.authorized) throw refused(chainReason(tls.authorizationError));
      if (!namesOnly(certificate.subjectaltname, this.#uri)) {
        throw refused('its certificate is for another machine', {
          expected: this.#uri,
          found: certificate.subjectaltname?.slice(0, 300),
        });
      }
    }
    const x509 = tls.getPeerX509Certificate();
    if (!x509) throw refused('it shows no certificate');
    this.peer = {
      spki: x509.publicKey.export({ type: 'spki', format: 'der' }),
      notAfter: Date.parse(x509.validTo),
    };
    this.refusal = undefined;
  }
}

function chainReason(error: Error | string | undefined): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error ?? '');
  if (code === 'CERT_HAS_EXPIRED') return 'its certificate has expired';
  if (code === 'DEPTH_ZERO_SELF_SIGNED_CERT') return 'it has not enrolled (its certificate is self-signed)';
  return `its certificate is not from this node's CA (${code || errorMessage(error)})`;
}

function refused(why: string, context: Readonly<Record<string, unknown>> = {}): InfraletError {
  return new InfraletError('PERMISSION_DENIED', `the agent is refused: ${why}`, { context });
}
