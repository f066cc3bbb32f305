import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { connectCri } from '../../../src/cli/cri-client.ts';
import { runDemo } from '../../../src/cli/demo.ts';
import { configSchema } from '../../../src/config/schema.ts';
import type { CriRequestFull } from '../../../src/rpc/cri.ts';
import { captureIo } from '../../support/cli-io.ts';
import { startCriStub } from '../../support/cri-stub.ts';

it('runs a pod with the labels of a kubelet, which crictl shows, and removes it at the end', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'infralet-demo-'));
  const socket = join(directory, 'cri.sock');
  const config = configSchema.parse({ stateDir: directory, server: { socket } });
  let pod: CriRequestFull<'RunPodSandbox'>['config'] = null;
  let container: CriRequestFull<'CreateContainer'>['config'] = null;
  try {
    await using stub = await startCriStub(socket, {
      ListPodSandbox: () => ({ items: pod ? [{ id: 'pod-1' }] : [] }),
      ImageStatus: () => ({ image: { id: 'image-1' } }),
      RunPodSandbox: (request) => {
        pod = request.config;
        return { podSandboxId: 'pod-1' };
      },
      CreateContainer: (request) => {
        container = request.config;
        return { containerId: 'container-1' };
      },
      StartContainer: () => ({}),
      PodSandboxStatus: () => ({ info: { info: JSON.stringify({ timeline: [{ phase: 'ready', ms: 12 }] }) } }),
      StopPodSandbox: () => ({}),
      RemovePodSandbox: () => ({}),
    });
    using cri = connectCri(socket);
    const never = async (): Promise<never> => {
      throw new Error('the image is there');
    };
    const templates = { templates: never, buildTemplate: never, removeTemplate: never };
    const admin = {
      loadImage: never,
      list: never,
      pools: never,
      describe: never,
      doctor: never,
      ...{ explainSize: never, orphans: never, removeOrphans: never, attachVolume: never, detachVolume: never },
      why: never,
      ...templates,
      [Symbol.dispose]: () => undefined,
    };
    const io = captureIo(AbortSignal.timeout(20_000));
    const image = { name: 'demo:1', make: never };
    const running = runDemo({ cri, admin, image, configFile: undefined }, config, io);
    // Instead of the container: its log is there once the demo has made the directory.
    const log = '2026-01-01T00:00:00Z stdout F hello\n2026-01-01T00:00:00Z stdout F ready\n';
    await expect
      .poll(() => (pod ? writeFile(join(pod.logDirectory, 'hello.log'), log).then(() => true) : false))
      .toBe(true);
    await (await running)[Symbol.asyncDispose]();
    expect(io.stdout()).toContain('ready  12 ms');
    const ofPod = {
      'io.kubernetes.pod.name': 'demo',
      'io.kubernetes.pod.namespace': 'default',
      'io.kubernetes.pod.uid': expect.stringMatching(/^[0-9a-f-]{36}$/),
    };
    expect(pod).toMatchObject({ labels: { ...ofPod, 'infralet.dev/demo': 'true' } });
    expect(container).toMatchObject({ labels: { ...ofPod, 'io.kubernetes.container.name': 'hello' } });
    expect(stub.calls.slice(-2)).toEqual(['StopPodSandbox', 'RemovePodSandbox']);
  } finally {
    await rm(directory, { recursive: true });
  }
});
