/**
 * First contact. The agent shows a self-signed certificate; what makes it ours is the MAC under the token over a nonce
 * of ours and its certificate request, whose key must be the key of the TLS connection itself. Nobody in between can
 * have both. The token itself is never sent. It is spent when the proof holds and before anything is signed, so that one
 * token makes one certificate even when the daemon dies in the middle.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { InfraletError } from '../base/errors.ts';
import type { AgentClient } from '../gen/infralet/agent/v1/Agent.ts';
import type { EnrolResponse__Output } from '../gen/infralet/agent/v1/EnrolResponse.ts';
import type { InstallResponse__Output } from '../gen/infralet/agent/v1/InstallResponse.ts';
import type { NodePki } from '../pki/authority.ts';
import { checkCsr } from '../pki/csr.ts';
import { enrolmentMac } from '../rpc/agent-protocol.ts';
import { unary } from './calls.ts';
import type { CallOptions } from './channel.ts';
import type { AgentCredentials } from './credentials.ts';
import { tokenHash } from './user-data.ts';

/** Remembers used tokens; durable, or a restarted daemon would take a token twice. */
export interface TokenStore {
  /** Marks the token (its SHA-256, hex) as used; false when it was used before. */
  consume(hash: string): boolean;
}

export interface Enrolment {
  readonly client: AgentClient;
  readonly credentials: AgentCredentials;
  readonly pki: NodePki;
  readonly tokens: TokenStore;
  readonly token: string;
  readonly uri: string;
}

const NONCE_BYTES = 32;

/**
 * Resolves when the agent has its certificate, with the end of that in milliseconds since the epoch. The connection is as
 * good as a new one would be: its key is the one that the certificate is for.
 */
export async function enrolAgent(enrolment: Enrolment, options: CallOptions): Promise<number> {
  const { client, credentials, pki, token } = enrolment;
  const nonce = randomBytes(NONCE_BYTES);
  const { csr, mac } = await unary<EnrolResponse__Output>('Enrol', options, (grpc, done) =>
    client.Enrol({ nonce }, grpc, done),
  );
  const expected = enrolmentMac(token, nonce, csr);
  if (mac.length !== expected.length || !timingSafeEqual(mac, expected)) {
    throw refused('it does not know the token of its user data');
  }
  const { spki } = await checkCsr(csr);
  if (!credentials.peer?.spki.equals(spki)) throw refused('its certificate request is for another key than its own');
  if (!enrolment.tokens.consume(tokenHash(token))) {
    throw refused('its token was used before', 'remove the sandbox; its machine is replaced with a new token');
  }
  const { chain: signed, notAfter } = await pki.signAgent(csr, enrolment.uri);
  const chain = [...signed];
  await unary<InstallResponse__Output>('Install', options, (grpc, done) => client.Install({ chain }, grpc, done));
  credentials.expect(enrolment.uri);
  return notAfter;
}

function refused(why: string, hint?: string): InfraletError {
  return new InfraletError('PERMISSION_DENIED', `the agent is refused: ${why}`, hint === undefined ? {} : { hint });
}
