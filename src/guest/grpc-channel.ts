/** The enrolled channel to one agent. Owns its gRPC client, its renewal and every call on it. */
import type { Duplex } from 'node:stream';
import { backoffMs } from '../base/backoff.ts';
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';
import { nanos } from '../base/time.ts';
import type { AgentClient } from '../gen/infralet/agent/v1/Agent.ts';
import type { ConfigureRequest } from '../gen/infralet/agent/v1/ConfigureRequest.ts';
import type { ConfigureResponse__Output } from '../gen/infralet/agent/v1/ConfigureResponse.ts';
import type { Sample__Output } from '../gen/infralet/agent/v1/Sample.ts';
import type { StatusResponse__Output } from '../gen/infralet/agent/v1/StatusResponse.ts';
import type { WatchEvent__Output } from '../gen/infralet/agent/v1/WatchEvent.ts';
import type { NodePki } from '../pki/authority.ts';
import type { CriMethod, CriRequest, CriResponseFull } from '../rpc/cri.ts';
import type { Logger } from '../telemetry/log.ts';
import { both, unary } from './calls.ts';
import type {
  AgentChannel,
  CallOptions,
  FirstAnswer,
  FirstWords,
  GuestEvent,
  GuestFile,
  GuestMount,
  GuestNic,
  GuestPod,
  GuestPodResources,
  GuestRoot,
  IncomingService,
  LogBytes,
  PutTarget,
  Sampling,
} from './channel.ts';
import { Allowance, type GuestLimits, isMisconduct, misconduct } from './conduct.ts';
import type { AgentCredentials } from './credentials.ts';
import type { CriCodec } from './cri-codec.ts';
import { putFiles, readFile, streamed } from './files.ts';
import { readLog } from './logs.ts';
import { keepRenewed } from './renewal.ts';
import { openTunnel } from './tunnel.ts';

export interface ChannelParts {
  readonly client: AgentClient;
  readonly credentials: AgentCredentials;
  readonly codec: CriCodec;
  readonly pki: NodePki;
  readonly uri: string;
  readonly notAfter: number;
  readonly limits: GuestLimits;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Connections of the guest on their way at once, as many as an honest agent lets wait; more are left to time out there. */
const MAX_OPENING = 64;
/** What an entry of a sample counts for. */
const SAMPLE_BYTES = 256;
/** Between two tries to hear of the guest's connections again. */
const INCOMING_RETRY = { initialMs: 200, maxMs: 5000, factor: 2, jitter: 0.2 };

export class GrpcAgentChannel implements AgentChannel {
  readonly #client: AgentClient;
  readonly #codec: CriCodec;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #credentials: AgentCredentials;
  readonly #stop = new AbortController();
  readonly #renewal: Promise<void>;
  readonly #allowance: Allowance;

  constructor(parts: ChannelParts) {
    this.#client = parts.client;
    this.#codec = parts.codec;
    this.#clock = parts.clock;
    this.#log = parts.log;
    this.#credentials = parts.credentials;
    this.#allowance = new Allowance(parts.limits);
    this.#renewal = keepRenewed(parts, this.#stop.signal);
  }

  async cri<M extends CriMethod>(method: M, request: CriRequest<M>, options: CallOptions): Promise<CriResponseFull<M>> {
    const { path, payload } = this.#codec.encode(method, request);
    return this.#codec.decode(method, await this.#call(method, path, payload, options));
  }

  async containerSpec(guestId: string, options: CallOptions): Promise<string> {
    const payload = this.#codec.specs.request(guestId);
    return this.#codec.specs.answer(await this.#call('Get container', this.#codec.specs.getPath, payload, options));
  }

  async setContainerSpec(guestId: string, spec: string, options: CallOptions): Promise<void> {
    const payload = this.#codec.specs.update(guestId, spec);
    await this.#call('Update container', this.#codec.specs.updatePath, payload, options);
  }

  async #call(rpc: string, method: string, payload: Buffer, options: CallOptions): Promise<Buffer> {
    const reply = await this.#unary<{ payload: Buffer }>(`Call ${rpc}`, options, (grpc, done) =>
      this.#client.Call({ method, payload }, grpc, done),
    );
    return reply.payload;
  }

  async status(options: CallOptions): Promise<StatusResponse__Output> {
    return await this.#unary('Status', options, (grpc, done) => this.#client.Status({}, grpc, done));
  }

  async takeSample(options: CallOptions): Promise<Sample__Output> {
    return await this.#unary('TakeSample', options, (grpc, done) => this.#client.TakeSample({}, grpc, done));
  }

  async *watch(heartbeatMs: number, signal: AbortSignal, sampling?: Sampling): AsyncGenerator<GuestEvent> {
    const call = this.#client.Watch({ heartbeatMs, sampleMs: sampling?.everyMs ?? 0, layerMs: sampling?.layerMs ?? 0 });
    for await (const message of streamed<WatchEvent__Output>(call, both(signal, this.#stop.signal))) {
      const { sample, containerEvent } = message;
      const entries = sample ? sample.containers.length + sample.interfaces.length : 0;
      this.#allowance.spend('events', containerEvent?.length ?? entries * SAMPLE_BYTES);
      if (message.heartbeat) {
        yield { kind: 'heartbeat' };
      } else if (message.containerEvent) {
        yield { kind: 'container', event: this.#codec.decodeEvent(message.containerEvent) };
      } else if (message.sample) {
        yield { kind: 'sample', sample: message.sample };
      } else if (message.interruption) {
        const { action, noticeMs } = message.interruption;
        yield { kind: 'interruption', action, noticeMs: Number(noticeMs) };
      } else if (message.resync) {
        yield { kind: 'resync' };
      }
    }
    if (!signal.aborted) throw new InfraletError('UNAVAILABLE', 'the agent ended the watch');
  }

  async openStreaming(signal: AbortSignal): Promise<Duplex> {
    return await openTunnel(this.#client.Tunnel(), { streaming: {} }, both(signal, this.#stop.signal));
  }

  async serveIncoming(
    service: IncomingService,
    onConnection: (socket: Duplex) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const stop = both(signal, this.#stop.signal);
    let opening = 0;
    for (let failures = 0; !stop.aborted; ) {
      try {
        for await (const { id } of streamed(this.#client.Incoming({ service }), stop)) {
          failures = 0;
          this.#allowance.spend('connections');
          if (opening >= MAX_OPENING) continue;
          opening += 1;
          void openTunnel(this.#client.Tunnel(), { incoming: id }, stop)
            .then(onConnection, (error: unknown) =>
              this.#log.debug('a connection of the guest was lost', { error: errorMessage(error) }),
            )
            .finally(() => {
              opening -= 1;
            });
        }
      } catch (error) {
        if (isMisconduct(error) || (error instanceof InfraletError && error.code === 'NOT_FOUND')) throw error;
        this.#log.debug('not hearing of the guest’s connections', { error: errorMessage(error) });
      }
      failures += 1;
      await this.#clock.sleep(backoffMs(INCOMING_RETRY, failures), stop).catch(() => undefined);
    }
    if (!signal.aborted) throw closed();
  }

  async putFiles(target: PutTarget, files: AsyncIterable<GuestFile>, options: CallOptions): Promise<string> {
    return await putFiles(this.#client, target, files, this.#linked(options));
  }

  async mount(mount: GuestMount, options: CallOptions): Promise<string> {
    const reply = await this.#unary<{ path: string }>('Mount', options, (grpc, done) =>
      this.#client.Mount(mount, grpc, done),
    );
    return reply.path;
  }

  async removeFiles(root: GuestRoot, paths: readonly string[], options: CallOptions): Promise<void> {
    await this.#unary('RemoveFiles', options, (grpc, done) =>
      this.#client.RemoveFiles({ root, paths: [...paths] }, grpc, done),
    );
  }

  readFile(root: GuestRoot, path: string, limit: number, signal: AbortSignal): AsyncIterable<Buffer> {
    return readFile(this.#client, { root, path, limit }, both(signal, this.#stop.signal));
  }

  async makeLog(name: string, bound: number, containerId: string, options: CallOptions): Promise<void> {
    const request = { name, bound, containerId };
    await this.#unary('MakeLog', options, (grpc, done) => this.#client.MakeLog(request, grpc, done));
  }

  readLog(name: string, offset: number, signal: AbortSignal): AsyncIterable<LogBytes> {
    return readLog(this.#client, name, offset, both(signal, this.#stop.signal));
  }

  async trimLog(name: string, offset: number, options: CallOptions): Promise<void> {
    await this.#unary('TrimLog', options, (grpc, done) => this.#client.TrimLog({ name, offset }, grpc, done));
  }

  async removeLog(name: string, options: CallOptions): Promise<void> {
    await this.#unary('RemoveLog', options, (grpc, done) => this.#client.RemoveLog({ name }, grpc, done));
  }

  async configure({ clockMs, entropy, hostname, pod }: FirstWords, options: CallOptions): Promise<FirstAnswer> {
    const request = {
      ...(pod ? podRequest(pod) : {}),
      clockNanos: nanos(clockMs),
      entropy: Buffer.from(entropy),
      hostname,
    };
    const { sandboxId, machine } = await this.#unary<ConfigureResponse__Output>('Configure', options, (grpc, done) =>
      this.#client.Configure(request, grpc, done),
    );
    const { clockNanos = '0', handledUs = '0', uptimeMs = '0', phases = {} } = machine ?? {};
    const { imageDigest = '', agentVersion = '', kernel = '', bootId = '' } = machine ?? {};
    return {
      sandboxId: templateId(sandboxId),
      clockMs: Number(BigInt(clockNanos) / 1_000_000n),
      handledMs: Number(handledUs) / 1000,
      uptimeMs: Number(uptimeMs),
      phases: Object.fromEntries(Object.entries(phases).map(([phase, ms]) => [phase, Number(ms)])),
      ...{ imageDigest, agentVersion, kernel, bootId },
    };
  }

  async configurePodNic(podNic: GuestNic, limits: GuestPodResources, options: CallOptions): Promise<void> {
    await this.#unary('Configure', options, (grpc, done) =>
      this.#client.Configure({ podNic, podResources: { ...limits } }, grpc, done),
    );
  }

  async reserveHugePages(
    pages: readonly { readonly pageBytes: number; readonly count: number }[],
    options: CallOptions,
  ): Promise<void> {
    const hugePages = [...pages];
    await this.#unary('Configure', options, (grpc, done) => this.#client.Configure({ hugePages }, grpc, done));
  }

  async configurePod(pod: GuestPod, options: CallOptions): Promise<string> {
    const reply = await this.#unary<ConfigureResponse__Output>('Configure', options, (grpc, done) =>
      this.#client.Configure(podRequest(pod), grpc, done),
    );
    return templateId(reply.sandboxId);
  }

  async rehearse(container: boolean, options: CallOptions): Promise<void> {
    await this.#unary('Rehearse', options, (grpc, done) => this.#client.Rehearse({ container }, grpc, done));
  }

  async renewLease(durationMs: number, options: CallOptions): Promise<void> {
    await this.#unary('RenewLease', options, (grpc, done) => this.#client.RenewLease({ durationMs }, grpc, done));
  }

  async configurePodResources(podResources: GuestPodResources, options: CallOptions): Promise<void> {
    await this.#unary('Configure', options, (grpc, done) => this.#client.Configure({ podResources }, grpc, done));
  }

  async signalContainer(containerId: string, signalNumber: number, options: CallOptions): Promise<void> {
    const request = { containerId, signal: signalNumber };
    await this.#unary('SignalContainer', options, (grpc, done) => this.#client.SignalContainer(request, grpc, done));
  }

  async #unary<Reply>(rpc: string, options: CallOptions, start: Parameters<typeof unary<Reply>>[2]): Promise<Reply> {
    try {
      return await unary(rpc, this.#linked(options), start);
    } catch (error) {
      // A peer that is not ours looks like no connection to gRPC.
      const refusal = this.#credentials.refusal;
      if (refusal && error instanceof InfraletError && error.code === 'UNAVAILABLE') throw refusal;
      throw error;
    }
  }

  #linked(options: CallOptions): CallOptions {
    return { ...options, signal: both(options.signal, this.#stop.signal) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(closed());
    this.#client.close();
    await this.#renewal;
  }
}

function podRequest({ limits, addresses, routes, ...facts }: GuestPod): ConfigureRequest {
  return { podSandbox: { ...facts, addresses: [...addresses], routes: [...routes] }, podResources: { ...limits } };
}

function templateId(text: string): string {
  if (/^[0-9a-f]{0,64}$/.test(text)) return text;
  throw misconduct('DATA_LOSS', 'the agent gave a sandbox id that is none');
}

function closed(): InfraletError {
  return new InfraletError('UNAVAILABLE', 'the channel to the agent was closed');
}
