/** The real CRI server over a node in memory (see world.ts). */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/base/time.ts';
import { createCriServer } from '../../src/cri/server.ts';
import { createStreamingServer } from '../../src/streaming/server.ts';
import { nullLogger } from '../../src/telemetry/log.ts';
import { type CriClient, criClient } from './cri-client.ts';
import { type MemoryServices, memoryServices } from './cri-services.ts';
import { World } from './world.ts';

export interface WorldCri extends AsyncDisposable {
  readonly world: World;
  readonly client: CriClient;
  readonly images: MemoryServices;
}

export async function startWorldCri(): Promise<WorldCri> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'infralet-world-'));
  stack.defer(async () => rm(directory, { recursive: true, force: true }));
  const world = await World.make(directory, { server: { socket: join(directory, 'cri.sock') } });
  stack.use(world.provider);
  const { config } = world;
  const runtime = stack.use(world.start());
  const streaming = stack.use(
    await createStreamingServer({ config: config.streaming, log: nullLogger, clock: systemClock }),
  );
  const images = memoryServices();
  const fine = { ok: true, reason: '', message: '' };
  stack.use(
    await createCriServer({
      config,
      log: nullLogger,
      clock: systemClock,
      version: '0.0.0',
      sandboxes: runtime.sandboxes,
      containers: runtime.containers,
      images: images.images,
      streaming,
      runtimeStatus: async () => ({
        runtime: { ok: false, reason: 'Test', message: 'a test' },
        network: fine,
        info: {},
      }),
    }),
  );
  const client = stack.use(criClient(config.server.socket));
  const owned = stack.move();
  return { world, client, images, [Symbol.asyncDispose]: async () => owned.disposeAsync() };
}
