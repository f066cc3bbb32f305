/** The real CRI server, with its streaming server, over the runtime of a node in memory (see world.ts). */
import { systemClock } from '../../src/base/time.ts';
import type { Config } from '../../src/config/schema.ts';
import type { CriDeps } from '../../src/cri/deps.ts';
import { createCriServer } from '../../src/cri/server.ts';
import type { NodeRuntime } from '../../src/node-runtime.ts';
import { createStreamingServer } from '../../src/streaming/server.ts';
import { nullLogger } from '../../src/telemetry/log.ts';

export const FINE = { ok: true, reason: '', message: '' };

/** Both servers, until they are disposed of; the runtime is the caller's. */
export async function serveWorldCri(
  config: Config,
  { sandboxes, containers, stats, events }: NodeRuntime,
  more: Pick<CriDeps, 'images' | 'imageDirectory' | 'observe' | 'runtimeStatus'>,
): Promise<AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  const common = { log: nullLogger, clock: systemClock };
  const streaming = stack.use(await createStreamingServer({ config: config.streaming, ...common }));
  const services = { sandboxes, containers, stats, events, streaming };
  stack.use(await createCriServer({ config, ...common, version: '0.0.0', ...services, ...more }));
  return stack.move();
}
