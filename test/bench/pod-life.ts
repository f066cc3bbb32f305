/** What a kubelet does with a pod, with the time of every call. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { PodSandboxConfig } from '../../src/gen/runtime/v1/PodSandboxConfig.ts';
import { kubeletContainer, kubeletPod } from './requests.ts';
import type { Samples } from './stats.ts';
import type { Target } from './target.ts';

/** A machine that boots among twenty others. */
const LIMITS = { timeoutMs: 600_000 };

export interface RunningPod {
  readonly id: string;
  readonly containerId: string;
}

/** One pod with one container that sleeps. */
export async function startPod(target: Target, samples: Samples): Promise<RunningPod> {
  const { cri } = target;
  const name = `bench-${randomUUID().slice(0, 8)}`;
  const pod: PodSandboxConfig = kubeletPod(name, join(target.logs, name));
  const { podSandboxId } = await samples.time('RunPodSandbox', () => cri.RunPodSandbox({ config: pod }, LIMITS));
  const config = kubeletContainer(pod, 'main', target.image, ['/bin/sleep', '1000000'], 'main/0.log');
  const request = { podSandboxId, config, sandboxConfig: pod };
  return await samples.time('CreateContainer + StartContainer', async () => {
    const { containerId } = await samples.time('CreateContainer', () => cri.CreateContainer(request, LIMITS));
    await samples.time('StartContainer', () => cri.StartContainer({ containerId }, LIMITS));
    return { id: podSandboxId, containerId };
  });
}

export async function execTrue(target: Target, pod: RunningPod, samples: Samples): Promise<void> {
  const request = { containerId: pod.containerId, cmd: ['true'], timeout: '60' };
  const { exitCode } = await samples.time('ExecSync true', () => target.cri.ExecSync(request, LIMITS));
  if (exitCode !== 0) throw new Error(`${target.name}: true ended with exit code ${exitCode}`);
}

/** In a kubelet's order: containers first, then the sandbox. */
export async function endPod(target: Target, pod: RunningPod, samples: Samples): Promise<void> {
  const { cri } = target;
  const { id: podSandboxId, containerId } = pod;
  await samples.time('StopContainer, no grace', () => cri.StopContainer({ containerId, timeout: '0' }, LIMITS));
  await samples.time('StopPodSandbox + RemovePodSandbox', async () => {
    await samples.time('StopPodSandbox', () => cri.StopPodSandbox({ podSandboxId }, LIMITS));
    await samples.time('RemovePodSandbox', () => cri.RemovePodSandbox({ podSandboxId }, LIMITS));
  });
}
