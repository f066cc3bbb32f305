/** The calls that bench:lists times. */
import { setTimeout as pause } from 'node:timers/promises';
import type { CriClient } from '../support/cri-client.ts';
import { RawClient } from './raw-client.ts';
import { kubeletContainer, kubeletPod } from './requests.ts';
import { Samples, type Summary } from './stats.ts';

/** The image that the simulated node has. */
export const IMAGE = 'example.test/app:1';
const WARM_UP = 30;
/** A little more than the daemon's default: in this time every machine has sent a sample. */
const INTERVAL_MS = 11_000;

interface Timed {
  readonly call: string;
  /** Resolves with the length of the answer. */
  readonly run: () => Promise<number>;
  /** Comes before each call and is not timed. */
  readonly before?: () => Promise<void>;
  /** At most. */
  readonly calls?: number;
}

export interface Timing extends Summary {
  readonly call: string;
  /** Length of the last answer. */
  readonly bytes: number;
  /** CPU time of the daemon per call, milliseconds; NaN where it did other things in between. */
  readonly cpuMs: number;
}

export interface Watch {
  /** CPU time of the daemon so far, milliseconds. */
  readonly cpuMs: () => Promise<number>;
  /** Around the calls of one kind. */
  readonly begin: () => Promise<void>;
  readonly end: (call: string) => Promise<void>;
}

export async function timeLists(cri: CriClient, calls: number, watch: Watch): Promise<readonly Timing[]> {
  const { items } = await cri.ListPodSandbox();
  let next = 0;
  const someId = (): string => {
    next = (next + 7) % items.length;
    return items[next]?.id ?? '';
  };
  using raw = await RawClient.open(cri.socket);
  const change = new Change(cri, someId());
  const work: readonly Timed[] = [
    { call: 'ListPodSandbox', run: () => raw.call('ListPodSandbox', {}) },
    {
      call: 'ListPodSandbox, ready ones',
      run: () => raw.call('ListPodSandbox', { filter: { state: { state: 'SANDBOX_READY' } } }),
    },
    { call: 'ListContainers', run: () => raw.call('ListContainers', {}) },
    {
      call: 'ListContainers after a change',
      run: () => raw.call('ListContainers', {}),
      before: () => change.next(),
    },
    {
      call: 'ListContainers of one pod',
      run: () => raw.call('ListContainers', { filter: { podSandboxId: someId() } }),
    },
    { call: 'ListContainerStats', run: () => raw.call('ListContainerStats', {}) },
    {
      call: 'ListContainerStats, all samples new',
      run: () => raw.call('ListContainerStats', {}),
      before: () => pause(INTERVAL_MS),
      calls: 10,
    },
    {
      call: 'ListContainerStats of one pod',
      run: () => raw.call('ListContainerStats', { filter: { podSandboxId: someId() } }),
    },
    { call: 'ListPodSandboxStats', run: () => raw.call('ListPodSandboxStats', {}) },
    { call: 'ListPodSandboxMetrics', run: () => raw.call('ListPodSandboxMetrics', {}), calls: 10 },
    { call: 'PodSandboxStatus', run: () => raw.call('PodSandboxStatus', { podSandboxId: someId() }) },
  ];
  const timings: Timing[] = [];
  for (const each of work) timings.push(await timeOne(each, calls, watch));
  await change.undo();
  return timings;
}

async function timeOne({ call, run, before, ...limit }: Timed, most: number, watch: Watch): Promise<Timing> {
  const calls = Math.min(most, limit.calls ?? most);
  for (let i = 0; i < Math.min(WARM_UP, calls); i += 1) await run();
  await watch.begin();
  const samples = new Samples();
  const started = await watch.cpuMs();
  let bytes = 0;
  for (let i = 0; i < calls; i += 1) {
    await before?.();
    bytes = await samples.time(call, run);
  }
  const cpuMs = before ? Number.NaN : ((await watch.cpuMs()) - started) / calls;
  await watch.end(call);
  return { call, bytes, ...samples.summary(call), cpuMs };
}

/** Makes a container more, and one less the next time. */
class Change {
  readonly #cri: CriClient;
  readonly #podSandboxId: string;
  #containerId: string | undefined;

  constructor(cri: CriClient, podSandboxId: string) {
    this.#cri = cri;
    this.#podSandboxId = podSandboxId;
  }

  async next(): Promise<void> {
    if (this.#containerId !== undefined) return await this.undo();
    const pod = kubeletPod('change', '');
    const config = kubeletContainer(pod, 'change', IMAGE, ['/bin/app'], '');
    const request = { podSandboxId: this.#podSandboxId, config, sandboxConfig: pod };
    this.#containerId = (await this.#cri.CreateContainer(request)).containerId;
  }

  async undo(): Promise<void> {
    if (this.#containerId === undefined) return;
    await this.#cri.RemoveContainer({ containerId: this.#containerId });
    this.#containerId = undefined;
  }
}
