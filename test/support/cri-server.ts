/** A CRI server on a socket of its own, over services in memory. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/base/time.ts';
import { type Config, configSchema } from '../../src/config/schema.ts';
import type { RuntimeState } from '../../src/cri/deps.ts';
import { type CriServer, createCriServer } from '../../src/cri/server.ts';
import { createStreamingServer, type StreamingServer } from '../../src/streaming/server.ts';
import { type Logger, nullLogger } from '../../src/telemetry/log.ts';
import { type CriClient, criClient } from './cri-client.ts';
import { type MemoryServices, memoryServices } from './cri-services.ts';

export interface TestCri extends AsyncDisposable {
  readonly config: Config;
  readonly server: CriServer;
  readonly streaming: StreamingServer;
  readonly services: MemoryServices;
  readonly client: CriClient;
  /** The temporary directory with the socket. */
  readonly dir: string;
}

export interface TestCriOptions {
  readonly log?: Logger;
  /** Sections of the configuration file. */
  readonly config?: Readonly<Record<string, object>>;
  readonly runtimeStatus?: (signal: AbortSignal) => Promise<RuntimeState>;
}

const READY: RuntimeState = {
  runtime: { ok: true, reason: '', message: '' },
  network: { ok: true, reason: '', message: '' },
  info: { machines: 0 },
};

export async function startCri(options: TestCriOptions = {}): Promise<TestCri> {
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'infralet-cri-'));
  stack.defer(async () => rm(dir, { recursive: true, force: true }));
  const config = configSchema.parse({
    ...options.config,
    server: { socket: join(dir, 'cri.sock'), drain: '2s', ...options.config?.['server'] },
  });
  const log = options.log ?? nullLogger;
  const services = memoryServices();
  const streaming = stack.use(await createStreamingServer({ config: config.streaming, log, clock: systemClock }));
  const server = stack.use(
    await createCriServer({
      config,
      log,
      clock: systemClock,
      version: '1.2.3',
      sandboxes: services.sandboxes,
      containers: services.containers,
      images: services.images,
      stats: services.stats,
      imageDirectory: '/var/lib/infralet/images',
      events: services.events,
      streaming,
      runtimeStatus: options.runtimeStatus ?? (async () => READY),
    }),
  );
  const client = stack.use(criClient(config.server.socket));
  const owned = stack.move();
  return { config, server, streaming, services, client, dir, [Symbol.asyncDispose]: async () => owned.disposeAsync() };
}
