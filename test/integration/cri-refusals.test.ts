/** A bad request for every RPC that takes anything: the code, and the path of the field at fault. */
import { status } from '@grpc/grpc-js';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CriMethod } from '../../src/rpc/cri.ts';
import { criMethods } from '../support/cri-client.ts';
import { containerRequest, podRequest } from '../support/cri-requests.ts';
import { startCri, type TestCri } from '../support/cri-server.ts';

let cri: TestCri;
let podSandboxId = '';
let created = '';
let running = '';
beforeAll(async () => {
  cri = await startCri();
  ({ podSandboxId } = await cri.client.RunPodSandbox({ config: podRequest() }));
  ({ containerId: created } = await cri.client.CreateContainer({ podSandboxId, config: containerRequest() }));
  ({ containerId: running } = await cri.client.CreateContainer({ podSandboxId, config: containerRequest() }));
  await cri.client.StartContainer({ containerId: running });
});
afterAll(async () => {
  await cri[Symbol.asyncDispose]();
});

type Refusal = readonly [rpc: CriMethod, request: () => object, code: keyof typeof status, details: string];

const gone = 'ffffffffffff';
const long = 'f'.repeat(200);
const spec = (image: string) => ({ image });

const REFUSALS: readonly Refusal[] = [
  ['RunPodSandbox', () => ({}), 'INVALID_ARGUMENT', 'config: must be set'],
  ['RunPodSandbox', () => ({ config: {} }), 'INVALID_ARGUMENT', 'config.metadata: must be set'],
  ['RunPodSandbox', () => ({ config: podRequest(), runtimeHandler: 'kata' }), 'INVALID_ARGUMENT', 'runtime_handler: '],
  ['RunPodSandbox', () => ({ config: podRequest({ windows: {} }) }), 'INVALID_ARGUMENT', 'config.windows: '],
  ['StopPodSandbox', () => ({}), 'INVALID_ARGUMENT', 'pod_sandbox_id: must not be empty'],
  ['StopPodSandbox', () => ({ podSandboxId: long }), 'INVALID_ARGUMENT', 'pod_sandbox_id: must not be longer'],
  ['RemovePodSandbox', () => ({}), 'INVALID_ARGUMENT', 'pod_sandbox_id: must not be empty'],
  [
    'RemovePodSandbox',
    () => ({ podSandboxId: 'a\nb' }),
    'INVALID_ARGUMENT',
    'pod_sandbox_id: must not contain control',
  ],
  ['PodSandboxStatus', () => ({}), 'INVALID_ARGUMENT', 'pod_sandbox_id: must not be empty'],
  ['PodSandboxStatus', () => ({ podSandboxId: gone }), 'NOT_FOUND', gone],
  ['PodSandboxStatus', () => ({ podSandboxId: '../../etc' }), 'NOT_FOUND', '../../etc'],
  [
    'ListPodSandbox',
    () => ({ filter: { state: { state: 9 } } }),
    'INVALID_ARGUMENT',
    'filter.state.state: must be one of',
  ],
  ['CreateContainer', () => ({ config: containerRequest() }), 'INVALID_ARGUMENT', 'pod_sandbox_id: must not be empty'],
  ['CreateContainer', () => ({ podSandboxId: gone, config: containerRequest() }), 'NOT_FOUND', gone],
  ['CreateContainer', () => ({ podSandboxId }), 'INVALID_ARGUMENT', 'config: must be set'],
  [
    'CreateContainer',
    () => ({ podSandboxId, config: containerRequest({ logPath: '../../../etc/cron.d/x' }) }),
    'INVALID_ARGUMENT',
    'config.log_path: must not contain ".."',
  ],
  [
    'CreateContainer',
    () => ({ podSandboxId, config: containerRequest(), sandboxConfig: {} }),
    'INVALID_ARGUMENT',
    'sandbox_config.metadata: must be set',
  ],
  ['StartContainer', () => ({}), 'INVALID_ARGUMENT', 'container_id: must not be empty'],
  ['StartContainer', () => ({ containerId: gone }), 'NOT_FOUND', gone],
  ['StopContainer', () => ({}), 'INVALID_ARGUMENT', 'container_id: must not be empty'],
  ['StopContainer', () => ({ containerId: running, timeout: -1 }), 'INVALID_ARGUMENT', 'timeout: must be at least 0'],
  ['RemoveContainer', () => ({}), 'INVALID_ARGUMENT', 'container_id: must not be empty'],
  [
    'ListContainers',
    () => ({ filter: { state: { state: 44 } } }),
    'INVALID_ARGUMENT',
    'filter.state.state: must be one of',
  ],
  ['ContainerStatus', () => ({}), 'INVALID_ARGUMENT', 'container_id: must not be empty'],
  ['ContainerStatus', () => ({ containerId: gone }), 'NOT_FOUND', gone],
  [
    'StreamContainers',
    () => ({ filter: { state: { state: 44 } } }),
    'INVALID_ARGUMENT',
    'filter.state.state: must be one of',
  ],
  [
    'StreamPodSandboxes',
    () => ({ filter: { state: { state: 44 } } }),
    'INVALID_ARGUMENT',
    'filter.state.state: must be one of',
  ],
  ['ContainerStats', () => ({}), 'INVALID_ARGUMENT', 'container_id: must not be empty'],
  ['ContainerStats', () => ({ containerId: gone }), 'NOT_FOUND', gone],
  ['ContainerStats', () => ({ containerId: created }), 'FAILED_PRECONDITION', 'has no figures'],
  ['PodSandboxStats', () => ({}), 'INVALID_ARGUMENT', 'pod_sandbox_id: must not be empty'],
  ['PodSandboxStats', () => ({ podSandboxId: gone }), 'NOT_FOUND', gone],
  ['UpdateContainerResources', () => ({ linux: {} }), 'INVALID_ARGUMENT', 'container_id: must not be empty'],
  ['UpdateContainerResources', () => ({ containerId: running }), 'INVALID_ARGUMENT', 'linux: must be set'],
  [
    'UpdateContainerResources',
    () => ({ containerId: running, linux: {}, windows: {} }),
    'INVALID_ARGUMENT',
    'windows: containers run Linux here',
  ],
  ['UpdateContainerResources', () => ({ containerId: gone, linux: {} }), 'NOT_FOUND', gone],
  ['UpdatePodSandboxResources', () => ({}), 'INVALID_ARGUMENT', 'pod_sandbox_id: must not be empty'],
  ['UpdatePodSandboxResources', () => ({ podSandboxId: gone }), 'NOT_FOUND', gone],
  ['ReopenContainerLog', () => ({}), 'INVALID_ARGUMENT', 'container_id: must not be empty'],
  ['ReopenContainerLog', () => ({ containerId: gone }), 'NOT_FOUND', gone],
  [
    'UpdateRuntimeConfig',
    () => ({ runtimeConfig: { networkConfig: { podCidr: '10.0.0.0' } } }),
    'INVALID_ARGUMENT',
    'runtime_config.network_config.pod_cidr: must be CIDRs',
  ],
  [
    'UpdateRuntimeConfig',
    () => ({ runtimeConfig: { networkConfig: { podCidr: '10.0.0.0/24,fd00::/129' } } }),
    'INVALID_ARGUMENT',
    'runtime_config.network_config.pod_cidr: has a prefix',
  ],
  ['ExecSync', () => ({ cmd: ['true'] }), 'INVALID_ARGUMENT', 'container_id: must not be empty'],
  ['ExecSync', () => ({ containerId: running }), 'INVALID_ARGUMENT', 'cmd: must not be empty'],
  ['ExecSync', () => ({ containerId: running, cmd: ['a\0'] }), 'INVALID_ARGUMENT', 'cmd[0]: must not contain a NUL'],
  [
    'ExecSync',
    () => ({ containerId: running, cmd: ['a'], timeout: -9 }),
    'INVALID_ARGUMENT',
    'timeout: must be at least 0',
  ],
  ['ExecSync', () => ({ containerId: gone, cmd: ['a'] }), 'NOT_FOUND', gone],
  ['Exec', () => ({ cmd: ['sh'], stdout: true }), 'INVALID_ARGUMENT', 'container_id: must not be empty'],
  ['Exec', () => ({ containerId: running, stdout: true }), 'INVALID_ARGUMENT', 'cmd: must not be empty'],
  ['Exec', () => ({ containerId: running, cmd: ['sh'] }), 'INVALID_ARGUMENT', 'stdout: one of stdin'],
  [
    'Exec',
    () => ({ containerId: running, cmd: ['sh'], tty: true, stdout: true, stderr: true }),
    'INVALID_ARGUMENT',
    'stderr: must be false with tty',
  ],
  ['Exec', () => ({ containerId: gone, cmd: ['sh'], stdout: true }), 'NOT_FOUND', gone],
  ['Exec', () => ({ containerId: created, cmd: ['sh'], stdout: true }), 'FAILED_PRECONDITION', 'is not running'],
  ['Attach', () => ({ stdout: true }), 'INVALID_ARGUMENT', 'container_id: must not be empty'],
  ['Attach', () => ({ containerId: running }), 'INVALID_ARGUMENT', 'stdout: one of stdin'],
  ['Attach', () => ({ containerId: created, stdout: true }), 'FAILED_PRECONDITION', 'is not running'],
  ['PortForward', () => ({ port: [80] }), 'INVALID_ARGUMENT', 'pod_sandbox_id: must not be empty'],
  ['PortForward', () => ({ podSandboxId, port: [80, 0] }), 'INVALID_ARGUMENT', 'port[1]: must be between 1 and 65535'],
  ['PortForward', () => ({ podSandboxId, port: [70_000] }), 'INVALID_ARGUMENT', 'port[0]: must be between'],
  ['PortForward', () => ({ podSandboxId: gone, port: [80] }), 'NOT_FOUND', gone],
  ['PullImage', () => ({}), 'INVALID_ARGUMENT', 'image: must be set'],
  ['PullImage', () => ({ image: spec('') }), 'INVALID_ARGUMENT', 'image.image: must not be empty'],
  ['PullImage', () => ({ image: spec('--help') }), 'INVALID_ARGUMENT', 'image.image: must be an image reference'],
  ['ImageStatus', () => ({}), 'INVALID_ARGUMENT', 'image: must be set'],
  ['ImageStatus', () => ({ image: spec('a b') }), 'INVALID_ARGUMENT', 'image.image: must be an image reference'],
  ['ListImages', () => ({ filter: { image: spec('/etc') } }), 'INVALID_ARGUMENT', 'filter.image.image: must be'],
  ['StreamImages', () => ({ filter: { image: spec('/etc') } }), 'INVALID_ARGUMENT', 'filter.image.image: must be'],
  ['RemoveImage', () => ({}), 'INVALID_ARGUMENT', 'image: must be set'],
  [
    'RemoveImage',
    () => ({ image: spec(`a${'b'.repeat(2000)}`) }),
    'INVALID_ARGUMENT',
    'image.image: must not be longer',
  ],
];

test.each(REFUSALS)('%s %#', async (rpc, request, code, details) => {
  const before = [...cri.services.journal];
  const call: Promise<unknown> = cri.client[rpc](request());
  await expect(call).rejects.toMatchObject({ code: status[code], details: expect.stringContaining(details) });
  expect(cri.services.journal).toEqual(before);
});

/** They take nothing that could be wrong. */
const CANNOT_REFUSE: readonly string[] = [
  'Version',
  'Status',
  'RuntimeConfig',
  'ImageFsInfo',
  'GetContainerEvents',
  'ListMetricDescriptors',
  'ListPodSandboxMetrics',
  'StreamPodSandboxMetrics',
  // Filters mean what there is; what they name need not be there.
  'ListContainerStats',
  'StreamContainerStats',
  'ListPodSandboxStats',
  'StreamPodSandboxStats',
];

test('every RPC that is implemented is in the table', async () => {
  const tested = new Set<string>(REFUSALS.map(([rpc]) => rpc));
  for (const { name } of criMethods()) {
    if (tested.has(name) || CANNOT_REFUSE.includes(name)) continue;
    await expect(cri.client[name]()).rejects.toMatchObject({ code: status.UNIMPLEMENTED });
  }
});

test('bytes that are no message: an error, not a crash', async () => {
  const { Client, credentials } = await import('@grpc/grpc-js');
  const client = new Client(`unix:${cri.config.server.socket}`, credentials.createInsecure());
  for (const { name, stream } of criMethods()) {
    if (stream) continue;
    const service = ['ListImages', 'ImageStatus', 'PullImage', 'RemoveImage', 'ImageFsInfo'].includes(name)
      ? 'ImageService'
      : 'RuntimeService';
    const { promise, resolve } = Promise.withResolvers<number>();
    client.makeUnaryRequest(
      `/runtime.v1.${service}/${name}`,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      // Field 1 with a wire type that does not exist.
      Buffer.of(0x0f),
      { deadline: Date.now() + 5000 },
      (error) => resolve(error?.code ?? status.OK),
    );
    expect([status.INTERNAL, status.UNIMPLEMENTED, status.INVALID_ARGUMENT]).toContain(await promise);
  }
  client.close();
  expect((await cri.client.Version()).runtimeName).toBe('infralet');
});
