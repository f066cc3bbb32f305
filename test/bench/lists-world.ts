/**
 * Real CRI server, stores and journal over machines and agents that are records in memory. The parent process says by
 * messages when to profile and what to report.
 */
import { join } from 'node:path';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { memoryServices } from '../support/cri-services.ts';
import { FINE, serveWorldCri } from '../support/serve-world.ts';
import { World } from '../support/world.ts';
import type { Answer, Ask, DaemonState } from './lists-messages.ts';
import { type Hot, startProfile } from './profile.ts';

/** Resolves when the parent is gone or has asked for something that failed. */
export async function serveWorld(directory: string): Promise<void> {
  const world = await World.make(directory, {
    stateDir: directory,
    server: { socket: join(directory, 'cri.sock') },
    // The fake agents send no heartbeats.
    machine: { heartbeat: '24h' },
    reconciler: { launchConcurrency: 16 },
    providers: { fake: { capacity: 1_000_000 } },
  });
  await using stack = new AsyncDisposableStack();
  const runtime = stack.use(world.start());
  stack.use(
    await serveWorldCri(world.config, runtime, {
      images: memoryServices().images,
      imageDirectory: directory,
      runtimeStatus: async () => ({ runtime: FINE, network: FINE, info: {} }),
    }),
  );
  await answerParent();
}

async function answerParent(): Promise<void> {
  const done = Promise.withResolvers<void>();
  let stopProfile: (() => Promise<readonly Hot[]>) | undefined;
  const answer = async (ask: Ask): Promise<Answer> => {
    switch (ask) {
      case 'state':
        return { state: state() };
      case 'memory':
        return memory();
      case 'profile':
        stopProfile = await startProfile();
        return { state: state() };
      case 'profiled':
        return { state: state(), hot: (await stopProfile?.()) ?? [] };
      default:
        throw new Error(`unknown question ${String(ask satisfies never)}`);
    }
  };
  process.on('message', (ask: Ask) => void answer(ask).then((reply) => process.send?.(reply), done.reject));
  process.on('disconnect', () => done.resolve());
  process.send?.({ state: state() } satisfies Answer);
  await done.promise;
}

function state(): DaemonState {
  const { user, system } = process.cpuUsage();
  return { cpuMs: (user + system) / 1000, resident: process.memoryUsage.rss() };
}

function memory(): Answer {
  const before = state();
  // As `node --expose-gc` would give it.
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return { state: before, settled: state().resident, heap: getHeapStatistics().used_heap_size };
}
