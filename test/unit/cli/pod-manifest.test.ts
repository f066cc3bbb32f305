import { describe, expect, test } from 'vitest';
import { readPod } from '../../../src/cli/pod-manifest.ts';

const MIB = 2 ** 20;
const read = (text: string, handler?: string) => readPod(text, 'pod.yaml', handler);
const podOf = (spec: object) => read(JSON.stringify({ kind: 'Pod', metadata: { name: 'web' }, spec }));
const container = (cpu: string | undefined, memory: string | undefined, more: object = {}) => {
  const limits = { ...(cpu === undefined ? {} : { cpu }), ...(memory === undefined ? {} : { memory }) };
  return { name: 'x', image: 'x', resources: { limits, requests: limits }, ...more };
};

describe('a manifest', () => {
  test('is added up as the kubelet does: containers together, init containers one by one, sidecars with both', () => {
    const { resources } = podOf({
      initContainers: [
        container('100m', '10Mi', { restartPolicy: 'Always' }),
        container('3', '50Mi'),
        container(undefined, '500Mi'),
      ],
      containers: [container('500m', '128Mi'), container('1', '0.25Gi'), { name: 'y', image: 'y' }],
    });
    expect(resources).toEqual({
      cpuPeriod: '100000',
      cpuQuota: '310000',
      cpuShares: '3174',
      memoryLimitInBytes: String(510 * MIB),
    });
  });

  test('without resources says so, as the kubelet does', () => {
    expect(podOf({ containers: [{ name: 'a', image: 'a' }] })).toEqual({
      name: 'web',
      namespace: 'default',
      runtimeHandler: '',
      annotations: {},
      resources: { cpuPeriod: '0', cpuQuota: '0', cpuShares: '2', memoryLimitInBytes: '0' },
      overhead: null,
    });
  });

  test('requests decide on shares, limits on the quota; what the pod says as a whole goes first', () => {
    const resources = { requests: { cpu: 0.5 }, limits: { cpu: 2, memory: '1e9' } };
    const one = { name: 'a', image: 'a', resources };
    expect(podOf({ containers: [one] }).resources).toMatchObject({
      cpuShares: '512',
      cpuQuota: '200000',
      memoryLimitInBytes: '1000000000',
    });
    const whole = podOf({ resources: { limits: { memory: '64Mi' } }, containers: [one] });
    expect(whole.resources).toMatchObject({ cpuQuota: '200000', memoryLimitInBytes: String(64 * MIB) });
  });

  test('names its runtime class, annotations and overhead; templates of workloads count, too', () => {
    const text = `
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {a: b}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front, namespace: shop}
spec:
  template:
    metadata: {annotations: {infralet.dev/zone: a}}
    spec:
      runtimeClassName: vmpod-spot
      overhead: {cpu: 250m, memory: 64Mi}
      containers: [{name: a, image: a}]
`;
    expect(read(text)).toMatchObject({
      name: 'front',
      namespace: 'shop',
      runtimeHandler: 'vmpod-spot',
      annotations: { 'infralet.dev/zone': 'a' },
      overhead: { cpuShares: '256', memoryLimitInBytes: String(64 * MIB) },
    });
    expect(read(text, 'other').runtimeHandler).toBe('other');
  });

  test('that is wrong says where', () => {
    expect(() => podOf({ containers: [] })).toThrow(/pod\.yaml: spec\.containers/);
    expect(() => podOf({ containers: [container('1 CPU', undefined)] })).toThrow('"1 CPU" is no quantity');
    expect(() => read('a: [')).toThrow(/^pod\.yaml: /);
    expect(() => read('just text')).toThrow('pod.yaml holds no pod');
  });
});

describe('a PodSandboxConfig', () => {
  const linux = { resources: { cpu_quota: 150000, cpu_period: 100000, memory_limit_in_bytes: '268435456' } };
  const metadata = { name: 'web', uid: 'u', namespace: 'shop', attempt: 1 };

  test('is read in the spelling of crictl and of protobuf', () => {
    const config = {
      metadata,
      log_directory: '/tmp',
      annotations: { 'infralet.dev/disk-size': '20Gi', my_key: 'x' },
      linux,
    };
    const pod = read(JSON.stringify(config), 'infralet');
    expect(pod).toEqual({
      name: 'web',
      namespace: 'shop',
      runtimeHandler: 'infralet',
      annotations: { 'infralet.dev/disk-size': '20Gi', my_key: 'x' },
      resources: { cpuPeriod: '100000', cpuQuota: '150000', cpuShares: '0', memoryLimitInBytes: '268435456' },
      overhead: null,
    });
    const camel = { metadata, linux: { resources: { cpuQuota: '150000', cpuPeriod: '100000' } } };
    expect(read(JSON.stringify(camel)).resources).toMatchObject({ cpuQuota: '150000' });
  });
});
