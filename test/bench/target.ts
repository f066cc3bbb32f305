/** A CRI runtime under test: what the bench of pods needs to know of it. */
import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { infoOfStatus } from '../../src/cli/sandbox-info.ts';
import { type CriClient, criClient } from '../support/cri-client.ts';
import { busyboxImage } from '../support/images.ts';
import { BUSYBOX, TestNode } from '../support/node.ts';
import { readMachine } from './machines.ts';
import { type Memory, memoryOfAll, withArgument, withDescendants } from './process-memory.ts';
import { RUN_LABEL } from './requests.ts';

export interface Target extends AsyncDisposable {
  readonly name: string;
  readonly cri: CriClient;
  /** For the report. */
  readonly version: string;
  /** A reference that the runtime has in its store, with /bin/sh and sleep. */
  readonly image: string;
  /** Directory for the pods' logs. */
  readonly logs: string;
  /** Resolves when as many machines wait for pods as there should; at once where none do. */
  readonly filled: () => Promise<void>;
  /** Memory that the processes of one pod take; undefined where they cannot be found. */
  readonly memory: (podSandboxId: string) => Promise<Memory | undefined>;
}

async function versionOf(cri: CriClient): Promise<string> {
  const { runtimeName, runtimeVersion } = await cri.Version();
  return `${runtimeName} ${runtimeVersion}`;
}

/** A template boots once, on a busy host at that. */
const TEMPLATE_MS = 300_000;

/** A node of our own whose machines boot by themselves (`cold`), or are clones of a template that is there already. */
export async function ownNode(cold: boolean, pool = 0): Promise<TestNode> {
  const node = await TestNode.start({
    settings: {
      log: { level: 'info', format: 'json' },
      isolation: { templateSharing: cold ? 'off' : 'on' },
      pools: pool > 0 ? { bench: { size: pool, maxMemory: '64Gi' } } : {},
    },
  });
  try {
    const limits = { signal: AbortSignal.timeout(TEMPLATE_MS), timeoutMs: TEMPLATE_MS };
    if (!cold) await node.admin.buildTemplate(limits);
    return node;
  } catch (error) {
    await node[Symbol.asyncDispose]();
    throw error;
  }
}

/** A daemon of our own, with its own state directory and bridge. */
export async function ownDaemon(cold: boolean, pool: number): Promise<Target> {
  const node = await ownNode(cold, pool);
  return {
    name: 'infralet',
    cri: node.cri,
    version: await versionOf(node.cri),
    image: BUSYBOX,
    logs: node.logs,
    filled: async () => await node.poolsFilled(AbortSignal.timeout(TEMPLATE_MS)),
    memory: async (podSandboxId) => {
      const { info } = await node.cri.PodSandboxStatus({ podSandboxId, verbose: true });
      const { instanceId } = infoOfStatus(info);
      const { process } = await readMachine(node.stateDir, instanceId);
      return await memoryOfAll([process.pid]);
    },
    [Symbol.asyncDispose]: () => node[Symbol.asyncDispose](),
  };
}

/** A runtime that somebody else has started and given the image to. */
export async function runningRuntime(name: string, socket: string, image: string): Promise<Target> {
  const cri = criClient(socket);
  try {
    const { image: found } = await cri.ImageStatus({ image: { image } });
    if (!found) throw new Error(`${name} at ${socket} has no image ${image}: see docs/benchmarks.md`);
    const logs = await mkdtemp(join(tmpdir(), 'infralet-bench-logs-'));
    return {
      name,
      cri,
      version: await versionOf(cri),
      image,
      logs,
      filled: async () => undefined,
      memory: shimMemory,
      [Symbol.asyncDispose]: async () => {
        await removePods(cri);
        cri[Symbol.dispose]();
        await rm(logs, { recursive: true, force: true });
      },
    };
  } catch (error) {
    cri[Symbol.dispose]();
    throw error;
  }
}

/** What a failure has left. */
async function removePods(cri: CriClient): Promise<void> {
  const { items } = await cri.ListPodSandbox({ filter: { labelSelector: RUN_LABEL } });
  for (const { id: podSandboxId } of items) {
    await cri.StopPodSandbox({ podSandboxId }, { timeoutMs: 60_000 });
    await cri.RemovePodSandbox({ podSandboxId }, { timeoutMs: 60_000 });
  }
}

/** containerd's pods: the shim that was started for this id, and all below it. */
async function shimMemory(podSandboxId: string): Promise<Memory | undefined> {
  const [shim] = await withArgument(podSandboxId);
  return shim === undefined ? undefined : await memoryOfAll(await withDescendants(shim));
}

/** Names of the images that `writeImages` makes. */
export const PEER_IMAGE = 'bench.test/busybox:1';
const PEER_PAUSE = 'bench.test/pause:1';

/** OCI layouts of what a plain containerd needs, in `directory`/busybox and `directory`/pause. */
export async function writeImages(directory: string): Promise<void> {
  for (const [folder, name, command] of [
    ['busybox', PEER_IMAGE, ['/bin/sh']],
    ['pause', PEER_PAUSE, ['/bin/sleep', '1000000000']],
  ] as const) {
    const made = await mkdtemp(join(tmpdir(), 'infralet-bench-image-'));
    try {
      await busyboxImage(made, { command, labels: { 'io.containerd.image.name': name } });
      await mkdir(directory, { recursive: true });
      await cp(made, join(directory, folder), { recursive: true });
    } finally {
      await rm(made, { recursive: true, force: true });
    }
  }
}
