/** Pods and containers with what a kubelet puts into them: lists are as long as they are on a real node. */
import { randomUUID } from 'node:crypto';
import type { ContainerConfig } from '../../src/gen/runtime/v1/ContainerConfig.ts';
import type { PodSandboxConfig } from '../../src/gen/runtime/v1/PodSandboxConfig.ts';

/** On every pod of this process: what it leaves behind can be told from everybody else's. */
export const RUN_LABEL = { 'infralet.bench/run': randomUUID() } as const;

export function kubeletPod(name: string, logDirectory: string): PodSandboxConfig {
  const uid = randomUUID();
  return {
    metadata: { name, uid, namespace: 'bench', attempt: 0 },
    hostname: name,
    logDirectory,
    dnsConfig: { servers: ['192.0.2.53'], searches: ['bench.svc.cluster.local'], options: ['ndots:5'] },
    labels: {
      ...RUN_LABEL,
      app: 'bench',
      'pod-template-hash': '6b7d9f5c4d',
      'io.kubernetes.pod.name': name,
      'io.kubernetes.pod.namespace': 'bench',
      'io.kubernetes.pod.uid': uid,
    },
    annotations: {
      'kubernetes.io/config.seen': '2026-01-01T00:00:00.000000000Z',
      'kubernetes.io/config.source': 'api',
    },
    linux: { cgroupParent: `/kubepods/besteffort/pod${uid}`, securityContext: {} },
  };
}

export function kubeletContainer(
  pod: PodSandboxConfig,
  name: string,
  image: string,
  command: readonly string[],
  logPath: string,
): ContainerConfig {
  const env = (key: string, value: string) => ({ key, value: Buffer.from(value) });
  return {
    metadata: { name, attempt: 0 },
    image: { image, userSpecifiedImage: image },
    command: [...command],
    logPath,
    envs: [
      env('KUBERNETES_SERVICE_HOST', '10.96.0.1'),
      env('KUBERNETES_SERVICE_PORT', '443'),
      env('KUBERNETES_PORT', 'tcp://10.96.0.1:443'),
      env('HOSTNAME', pod.metadata?.name ?? ''),
    ],
    labels: {
      'io.kubernetes.container.name': name,
      'io.kubernetes.pod.name': pod.metadata?.name ?? '',
      'io.kubernetes.pod.namespace': 'bench',
      'io.kubernetes.pod.uid': pod.metadata?.uid ?? '',
    },
    annotations: {
      'io.kubernetes.container.hash': '5f9c3a1e',
      'io.kubernetes.container.restartCount': '0',
      'io.kubernetes.container.terminationMessagePath': '/dev/termination-log',
      'io.kubernetes.container.terminationMessagePolicy': 'File',
      'io.kubernetes.pod.terminationGracePeriod': '30',
    },
    linux: { resources: { oomScoreAdj: '1000', cpuShares: '2' }, securityContext: {} },
  };
}
