/** Opens channels to agents: the first time by enrolment, later by the certificate that came of it. */
import { randomBytes } from 'node:crypto';
import { InfraletError } from '../base/errors.ts';
import { type Clock, withTimeout } from '../base/time.ts';
import type { StatusResponse__Output } from '../gen/infralet/agent/v1/StatusResponse.ts';
import type { NodePki } from '../pki/authority.ts';
import { agentUri } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { unary } from './calls.ts';
import type { AgentChannel, CallOptions, ChannelDialer, MachineIdentity } from './channel.ts';
import { type AgentAddress, clientFactory } from './client.ts';
import type { GuestLimits } from './conduct.ts';
import { AgentCredentials } from './credentials.ts';
import { type CriCodec, createCriCodec } from './cri-codec.ts';
import { enrolAgent, type TokenStore } from './enrol.ts';
import { GrpcAgentChannel } from './grpc-channel.ts';
import type { HandshakeTimes } from './handshake.ts';
import { encodeUserData, newToken } from './user-data.ts';

export interface DialerOptions {
  readonly pki: NodePki;
  readonly tokens: TokenStore;
  /** Largest CRI message, bytes: the configuration's server.maxMessage. */
  readonly maxMessage: number;
  /** The configuration's section `guest`. */
  readonly limits: GuestLimits;
  /** Lease that machines begin with, milliseconds; 0: none. @default 0 */
  readonly leaseMs?: number;
  readonly clock: Clock;
  readonly log: Logger;
  /**
   * A clone is there and takes half a second to its first byte, with others beside it more: a second handshake would only slow it
   * down. @default one and a half seconds until another connection is tried, ten seconds for the handshake
   */
  readonly times?: HandshakeTimes;
}

const TIMES: HandshakeTimes = { firstByteMs: 1500, handshakeMs: 10_000 };

export function createDialer(options: DialerOptions): ChannelDialer {
  const { pki, tokens, clock } = options;
  const times = options.times ?? TIMES;
  const { limits } = options;
  const newClient = clientFactory(options.maxMessage, limits.maxAnswer);
  let codec: CriCodec | undefined;

  const connect = async (
    address: AgentAddress,
    identity: MachineIdentity,
    call: CallOptions,
  ): Promise<AgentChannel> => {
    const log = options.log.child({ sandboxId: identity.sandboxId, instanceId: identity.instanceId });
    const uri = agentUri(pki.cluster, identity.sandboxId, identity.instanceId);
    const credentials = new AgentCredentials(pki, uri, times, log);
    const client = newClient(address, credentials);
    try {
      const known = await unary<StatusResponse__Output>('Status', call, (grpc, done) => client.Status({}, grpc, done));
      const { containerdReady, agentResidentBytes } = known;
      log.debug('the machine is there again', { containerdReady, agentResidentBytes: Number(agentResidentBytes) });
    } catch (error) {
      client.close();
      throw explain(error, credentials);
    }
    codec ??= createCriCodec(limits.maxAnswer);
    const notAfter = credentials.peer?.notAfter ?? clock.now();
    return new GrpcAgentChannel({ client, credentials, codec, pki, uri, notAfter, limits, clock, log });
  };

  return {
    newToken,
    userData: (token, { sandboxId }) =>
      encodeUserData({
        cluster: pki.cluster,
        sandboxId,
        token,
        ca: pki.ca,
        clockMs: clock.now(),
        entropy: randomBytes(32).toString('base64url'),
        maxMessage: options.maxMessage,
        ...(options.leaseMs ? { leaseMs: options.leaseMs } : {}),
      }),
    connect,
    enrol: async (address, identity, token, call) => {
      using limit = withTimeout(call.signal, call.timeoutMs, `enrolling sandbox ${identity.sandboxId}`);
      const limited: CallOptions = { signal: limit, timeoutMs: call.timeoutMs };
      const log = options.log.child({ sandboxId: identity.sandboxId, instanceId: identity.instanceId });
      const uri = agentUri(pki.cluster, identity.sandboxId, identity.instanceId);
      const credentials = new AgentCredentials(pki, undefined, times, log);
      const client = newClient(address, credentials);
      try {
        const notAfter = await enrolAgent({ client, credentials, pki, tokens, token, uri }, limited);
        codec ??= createCriCodec(limits.maxAnswer);
        return new GrpcAgentChannel({ client, credentials, codec, pki, uri, notAfter, limits, clock, log });
      } catch (error) {
        client.close();
        const explained = explain(error, credentials);
        if (explained instanceof InfraletError && explained.code === 'PERMISSION_DENIED') {
          log.warn('enrolment refused', { reason: explained.message });
        }
        throw explained;
      }
    },
  };
}

/** gRPC reports a refused peer as no connection at all; the credentials know better. */
function explain(error: unknown, credentials: AgentCredentials): unknown {
  const { refusal } = credentials;
  return refusal && error instanceof InfraletError && error.code === 'UNAVAILABLE' ? refusal : error;
}
