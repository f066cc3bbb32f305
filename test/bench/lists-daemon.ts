/**
 * The daemon's side of bench:lists, a process of its own: real CRI server, stores and journal over machines and agents
 * that are records in memory. It is told by messages of its parent when to profile and what to report.
 */
import { join } from 'node:path';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { systemClock } from '../../src/base/time.ts';
import { createCriServer } from '../../src/cri/server.ts';
import { createStreamingServer } from '../../src/streaming/server.ts';
import { nullLogger } from '../../src/telemetry/log.ts';
import { memoryServices } from '../support/cri-services.ts';
import { World } from '../support/world.ts';
import type { Answer, Ask, DaemonState } from './lists-messages.ts';
import { type Hot, startProfile } from './profile.ts';

const [directory = ''] = process.argv.slice(2);

const world = await World.make(directory, {
  stateDir: directory,
  server: { socket: join(directory, 'cri.sock') },
  // The fake agents send no heartbeats.
  machine: { heartbeat: '24h' },
  reconciler: { launchConcurrency: 16 },
});
await using stack = new AsyncDisposableStack();
const runtime = stack.use(world.start());
const { config } = world;
const streaming = stack.use(
  await createStreamingServer({ config: config.streaming, log: nullLogger, clock: systemClock }),
);
const fine = { ok: true, reason: '', message: '' };
stack.use(
  await createCriServer({
    config,
    log: nullLogger,
    clock: systemClock,
    version: '0.0.0',
    sandboxes: runtime.sandboxes,
    containers: runtime.containers,
    images: memoryServices().images,
    streaming,
    runtimeStatus: async () => ({ runtime: fine, network: fine, info: {} }),
  }),
);

// As `node --expose-gc` would give it: memory is told after a collection.
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

function state(): DaemonState {
  const { user, system } = process.cpuUsage();
  return { cpuMs: (user + system) / 1000, resident: process.memoryUsage.rss() };
}

let stopProfile: (() => Promise<readonly Hot[]>) | undefined;

async function answer(ask: Ask): Promise<Answer> {
  switch (ask) {
    case 'state':
      return { state: state() };
    case 'memory': {
      const before = state();
      collect();
      return { state: before, settled: state().resident, heap: getHeapStatistics().used_heap_size };
    }
    case 'profile':
      stopProfile = await startProfile();
      return { state: state() };
    case 'profiled':
      return { state: state(), hot: (await stopProfile?.()) ?? [] };
    default:
      throw new Error(`unknown question ${String(ask satisfies never)}`);
  }
}

const done = Promise.withResolvers<void>();
process.on('message', (ask: Ask) => void answer(ask).then((reply) => process.send?.(reply), done.reject));
process.on('disconnect', () => done.resolve());
process.send?.({ state: state() } satisfies Answer);
await done.promise;
