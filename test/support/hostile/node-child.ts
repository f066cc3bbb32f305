/**
 * A node in a process of its own, so that its memory can be measured: the real runtime, the real channels and the real registry
 * for guests over machines that the parent process runs. Speaks with the parent by messages.
 */
import { join } from 'node:path';
import { FaultPlan } from '../../../providers/fake/faults.ts';
import { provider as fake } from '../../../providers/fake/index.ts';
import { FakeProvider } from '../../../providers/fake/provider.ts';
import { errorMessage } from '../../../src/base/errors.ts';
import { systemClock } from '../../../src/base/time.ts';
import type { Instance, Provider } from '../../../src/cloud/contract.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { createDialer } from '../../../src/guest/dialer.ts';
import { linuxOn } from '../../../src/image/platform.ts';
import { createImageService } from '../../../src/image/store-service.ts';
import { startNodeRuntime } from '../../../src/node-runtime.ts';
import { openPki } from '../../../src/pki/authority.ts';
import { loadCri } from '../../../src/rpc/load.ts';
import { Journal } from '../../../src/state/journal.ts';
import { PodFiles } from '../../../src/state/pod-files.ts';
import { nullLogger as log } from '../../../src/telemetry/log.ts';
import { FakeNetwork } from '../fake-guest.ts';
import { podConfig } from '../sandbox-records.ts';
import { IMAGE, images } from '../world.ts';
import type { FromNode, ToNode } from './node.ts';

const [stateDir = ''] = process.argv.slice(2);
const clock = systemClock;
const signal = new AbortController().signal;
const tell = (message: FromNode): void => void process.send?.(message);

const config = configSchema.parse({
  stateDir,
  isolation: { templateSharing: 'off' },
  machine: { bootTimeout: '20s' },
  stats: { interval: '1s' },
  containerLog: { endWait: '300ms' },
  // Floods have to be made, too, in a test.
  guest: { messages: 200, burst: 3000 },
  reconciler: { retryInitial: '20ms', sweep: '1s' },
  // So short that each machine is renewed within the test.
  pki: { leafLife: '20s', renewBefore: '18s', clockSkew: '5s' },
});

/** Agents by machine, as the parent has started them. */
const ports = new Map<string, number>();
const waiting = new Map<string, (port: number) => void>();
const machines = new FakeProvider(
  fake.parseConfig({}),
  { log, clock, stateDir, guestImageDir: stateDir, owner: {} },
  new FaultPlan(),
);
const reached = (instance: Instance): Instance => {
  const port = ports.get(instance.id);
  return { ...instance, agent: port === undefined ? undefined : { host: '127.0.0.1', port } };
};
const provider: Provider = Object.assign(Object.create(machines) as Provider, {
  launch: async (batch: Parameters<Provider['launch']>[0], stop: AbortSignal) => {
    const results = await machines.launch(batch, stop);
    return await Promise.all(
      results.map(async (result, index) => {
        if (!result.ok) return result;
        const { id } = result.instance;
        const { userData = '' } = batch[index] ?? {};
        if (!ports.has(id)) {
          const port = new Promise<number>((resolve) => waiting.set(id, resolve));
          tell({ kind: 'launched', machine: id, userData });
          ports.set(id, await port);
        }
        return { ...result, instance: reached(result.instance) };
      }),
    );
  },
  describe: async (...call: Parameters<Provider['describe']>) => (await machines.describe(...call)).map(reached),
  terminate: async (...call: Parameters<Provider['terminate']>) => {
    await machines.terminate(...call);
    for (const id of call[0]) tell({ kind: 'ended', machine: id });
  },
  classify: (error: unknown) => machines.classify(error),
  console: async () => '',
});

const journal = new Journal(join(stateDir, 'journal.db'));
const pki = await openPki({ ...config.pki, stateDir, cluster: config.cluster, clock, log });
const store = await createImageService({
  ...{ config: config.image, stateDir, log, clock, platform: linuxOn(config.machine.architecture) },
});
const runtime = startNodeRuntime({
  config,
  node: { hostname: 'node-1', dns: { servers: [], searches: [], options: [] } },
  cri: loadCri(),
  journal,
  podFiles: new PodFiles(join(stateDir, 'pods')),
  provider,
  network: new FakeNetwork(),
  dialer: createDialer({
    pki,
    tokens: { consume: (hash) => journal.consumeToken(hash, clock.now()) },
    maxMessage: config.server.maxMessage,
    limits: config.guest,
    clock,
    log,
  }),
  images: { ...images(), serveGuest: (id, socket) => store.serveGuest(id, socket) },
  guestImage: async () => 'image-1',
  clock,
  log,
});

let largest = 0;
setInterval(() => {
  largest = Math.max(largest, process.memoryUsage.rss());
}, 20).unref();

const { CreateContainer } = loadCri().RuntimeService.service;
const container = (logPath: string) =>
  CreateContainer.requestDeserialize(
    CreateContainer.requestSerialize({
      config: { metadata: { name: 'app', attempt: 0 }, image: { image: IMAGE }, logPath },
    }),
  ).config;

const commands: Readonly<Record<ToNode['command'], (pod: string) => Promise<unknown>>> = {
  run: async (pod) => {
    const sandbox = podConfig({
      metadata: { name: pod, uid: pod, namespace: 'default', attempt: 0 },
      logDirectory: join(stateDir, 'logs', pod),
    });
    return await runtime.sandboxes.run(sandbox, '', signal);
  },
  contain: async (id) => {
    const app = container('app.log');
    if (!app) throw new Error('no container configuration');
    const made = await runtime.containers.create(id, app, runtime.sandboxes.get(id).config, signal);
    await runtime.containers.start(made, signal);
    return made;
  },
  state: async (id) => {
    const containers = runtime.containers.list().filter(({ sandboxId }) => sandboxId === id);
    return { ready: runtime.sandboxes.get(id).ready, containers: containers.map(({ state }) => state) };
  },
  stats: async (id) => runtime.stats.pod(runtime.sandboxes.get(id).id) ?? null,
  why: async (pod) => await runtime.why(pod, signal),
  remove: async (id) => {
    await runtime.sandboxes.stop(id, signal);
    await runtime.sandboxes.remove(id, signal);
  },
  memory: async () => ({ now: process.memoryUsage.rss(), largest }),
};

process.on(
  'message',
  (message: ToNode | { readonly command: 'agent'; readonly machine: string; readonly port: number }) => {
    if (message.command === 'agent') {
      waiting.get(message.machine)?.(message.port);
      return;
    }
    const { call } = message;
    commands[message.command](message.argument).then(
      (value) => tell({ kind: 'answer', call, value }),
      (error: unknown) => tell({ kind: 'answer', call, error: errorMessage(error) }),
    );
  },
);
process.once('disconnect', () => process.exit(0));
tell({ kind: 'up' });
