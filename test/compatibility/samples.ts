/** Requests that use every field that a machine may hear of, each with a value of its own. */
import type { ContainerConfig } from '../../src/gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerResources } from '../../src/gen/runtime/v1/LinuxContainerResources.ts';
import type { PodSandboxConfig } from '../../src/gen/runtime/v1/PodSandboxConfig.ts';

const resources: LinuxContainerResources = {
  cpuPeriod: '100000',
  cpuQuota: '50000',
  cpuShares: '512',
  memoryLimitInBytes: '268435456',
  oomScoreAdj: '17',
  cpusetCpus: '0',
  cpusetMems: '0',
  hugepageLimits: [{ pageSize: '2MB', limit: '2097152' }],
  unified: { 'memory.high': '200000000' },
  memorySwapLimitInBytes: '268435456',
};

const users = { runAsUser: { value: '11' }, runAsGroup: { value: '12' }, supplementalGroups: ['13', '14'] };

/** `hostPath` is a directory of the node. */
export function fullPod(name: string, hostPath: string): PodSandboxConfig {
  return {
    metadata: { name, uid: `uid-${name}`, namespace: 'ns', attempt: 3 },
    hostname: 'host-of-pod',
    logDirectory: hostPath,
    dnsConfig: { servers: ['10.9.8.7'], searches: ['search.test'], options: ['ndots:3'] },
    portMappings: [{ protocol: 'UDP', containerPort: 53, hostPort: 5353, hostIp: '127.0.0.1' }],
    labels: { app: 'full' },
    annotations: { note: 'of the pod' },
    linux: {
      cgroupParent: '/kubepods/pod1',
      sysctls: { 'net.core.somaxconn': '99' },
      overhead: resources,
      resources,
      securityContext: {
        ...users,
        namespaceOptions: { network: 'POD', pid: 'CONTAINER', ipc: 'NODE' },
        readonlyRootfs: true,
        privileged: true,
        seccompProfilePath: 'unconfined',
        seccomp: { profileType: 'Unconfined' },
        apparmor: { profileType: 'Unconfined' },
      },
    },
  };
}

export function fullContainer(name: string, image: string, hostPath: string): ContainerConfig {
  return {
    metadata: { name, attempt: 4 },
    image: {
      image,
      annotations: { of: 'the image' },
      userSpecifiedImage: 'app:latest',
      runtimeHandler: 'infralet',
      imageRef: 'ref',
    },
    command: ['/bin/app'],
    args: ['--flag'],
    workingDir: '/work',
    envs: [{ key: 'KEY', value: Buffer.from('value') }],
    mounts: [
      {
        containerPath: '/mnt',
        hostPath,
        readonly: true,
        selinuxRelabel: true,
      },
    ],
    devices: [{ containerPath: '/dev/fuse', hostPath: '/dev/fuse', permissions: 'rw' }],
    CDIDevices: [{ name: 'example.com/device=0' }],
    labels: { app: 'full-container' },
    annotations: { note: 'of the container' },
    logPath: `${name}.log`,
    stdin: true,
    stdinOnce: true,
    tty: true,
    linux: {
      resources,
      securityContext: {
        ...users,
        capabilities: {
          addCapabilities: ['NET_ADMIN'],
          dropCapabilities: ['MKNOD'],
          addAmbientCapabilities: ['NET_RAW'],
        },
        privileged: true,
        namespaceOptions: { network: 'POD', pid: 'CONTAINER', ipc: 'NODE' },
        readonlyRootfs: true,
        apparmorProfile: 'unconfined',
        seccompProfilePath: 'unconfined',
        noNewPrivs: true,
        maskedPaths: ['/proc/masked'],
        readonlyPaths: ['/proc/fixed'],
        seccomp: { profileType: 'Unconfined' },
        apparmor: { profileType: 'Unconfined' },
      },
    },
  };
}
