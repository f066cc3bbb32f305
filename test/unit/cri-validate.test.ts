import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { cutToRoom } from '../../src/cri/runtime/exec-sync.ts';
import { checkContainerConfig } from '../../src/cri/validate/container-config.ts';
import { checkSandboxConfig } from '../../src/cri/validate/sandbox-config.ts';
import { seconds } from '../../src/cri/validate/seconds.ts';
import { containerConfig, sandboxConfig } from '../support/cri-requests.ts';

const refusal = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT' });
    return error instanceof Error ? error.message : '';
  }
  return 'accepted';
};

const sandbox = (change: object) => refusal(() => checkSandboxConfig('config', sandboxConfig(change)));
const container = (change: object) => refusal(() => checkContainerConfig('config', containerConfig(change)));
const podContext = (securityContext: object) => sandbox({ linux: { securityContext } });
const context = (securityContext: object) => container({ linux: { securityContext } });
const metadata = { name: 'web', uid: 'u-1', namespace: 'default', attempt: 0 };

/** A mapping of ids as kubelets send it, with a mistake. */
function range(change: object = {}): object {
  return { containerId: 0, hostId: 65_536, length: 65_536, ...change };
}

describe('PodSandboxConfig', () => {
  test('what a kubelet sends is accepted', () => {
    expect(
      sandbox({
        hostname: 'web-0.example',
        logDirectory: '/var/log/pods/default_web_u-1',
        dnsConfig: {
          servers: ['10.96.0.10', 'fe80::1%eth0'],
          searches: ['svc.cluster.local', '.'],
          options: ['ndots:5'],
        },
        portMappings: [{ protocol: 'UDP', containerPort: 53, hostPort: 5353, hostIp: '127.0.0.1' }],
        labels: { 'io.kubernetes.pod.uid': 'u-1' },
        annotations: { 'kubernetes.io/config.source': 'line\nbreaks are fine' },
        linux: {
          cgroupParent: '/kubepods/besteffort/podu-1',
          sysctls: { 'net.ipv4.ip_unprivileged_port_start': '0', 'net/ipv4/conf/eth0.1/rp_filter': '1' },
          overhead: {},
          resources: { cpuPeriod: '100000', cpuQuota: '-1', cpuShares: '2', memoryLimitInBytes: '134217728' },
          securityContext: {
            namespaceOptions: { network: 'POD', pid: 'CONTAINER', ipc: 'POD', usernsOptions: { mode: 'NODE' } },
            seccomp: { profileType: 'RuntimeDefault' },
            supplementalGroups: ['1', '4294967294'],
          },
        },
      }),
    ).toBe('accepted');
  });

  test.each<[string, object]>([
    ['config.metadata: must be set', { metadata: null }],
    ['config.metadata.name: must not be empty', { metadata: { ...metadata, name: '' } }],
    ['config.metadata.uid: must not be empty', { metadata: { ...metadata, uid: '' } }],
    ['config.metadata.namespace: must not be empty', { metadata: { ...metadata, namespace: '' } }],
    ['config.metadata.name: must not be longer than 253', { metadata: { ...metadata, name: 'n'.repeat(254) } }],
    ['config.metadata.name: must not be "." or ".."', { metadata: { ...metadata, name: 'a/b' } }],
    ['config.metadata.uid: must not be "." or ".."', { metadata: { ...metadata, uid: '..' } }],
    ['config.metadata.name: must not contain control', { metadata: { ...metadata, name: 'a\nb' } }],
    ['config.hostname: must not be longer than 64', { hostname: 'h'.repeat(65) }],
    ['config.hostname: must consist of', { hostname: 'no spaces' }],
    ['config.log_directory: must be an absolute path', { logDirectory: 'var/log' }],
    ['config.log_directory: must not contain ".."', { logDirectory: '/var/log/../../etc' }],
    ['config.dns_config.servers[1]: must be an IP', { dnsConfig: { servers: ['1.1.1.1', 'dns.example'] } }],
    ['config.dns_config.searches[0]: must not contain', { dnsConfig: { searches: ['a\nnameserver 6.6.6.6'] } }],
    ['config.dns_config.options[0]: must not contain spaces', { dnsConfig: { options: ['a b'] } }],
    ['config.port_mappings[0].protocol: must be one of', { portMappings: [{ protocol: 7, containerPort: 1 }] }],
    ['config.port_mappings[0].container_port: must be between 1', { portMappings: [{ containerPort: 0 }] }],
    [
      'config.port_mappings[0].host_port: must be between 0',
      { portMappings: [{ containerPort: 1, hostPort: 65_536 }] },
    ],
    ['config.port_mappings[0].host_ip: must be an IP', { portMappings: [{ containerPort: 1, hostIp: 'eth0' }] }],
    ['config.labels: must not have an empty key', { labels: { '': 'x' } }],
    ['config.annotations: must not hold more than', { annotations: { big: 'x'.repeat(1024 * 1024) } }],
    ['config.windows: pods run Linux here', { windows: {} }],
    ['config.linux.sysctls["a b"]: is no name', { linux: { sysctls: { 'a b': '1' } } }],
    ['config.linux.resources.cpu_period: must be at least 0', { linux: { resources: { cpuPeriod: '-1' } } }],
    ['config.linux.overhead.oom_score_adj: must be at most', { linux: { overhead: { oomScoreAdj: '1001' } } }],
    ['config.linux.resources.cpuset_cpus: must be a list', { linux: { resources: { cpusetCpus: 'all' } } }],
    ['config.linux.resources.unified["../x"]', { linux: { resources: { unified: { '../x': '1' } } } }],
  ])('%s', (expected, change) => {
    expect(sandbox(change)).toContain(expected);
  });

  test.each<[string, object]>([
    ['namespace_options.network: must be one of POD, NODE', { namespaceOptions: { network: 'CONTAINER' } }],
    ['namespace_options.pid: must be one of', { namespaceOptions: { pid: 'TARGET' } }],
    ['namespace_options.ipc: must be one of', { namespaceOptions: { ipc: 9 } }],
    [
      'namespace_options.userns_options.mode: must be one of',
      { namespaceOptions: { usernsOptions: { mode: 'TARGET' } } },
    ],
    [
      'namespace_options.userns_options.uids: must hold exactly one',
      { namespaceOptions: { usernsOptions: { mode: 'POD' } } },
    ],
    [
      'namespace_options.userns_options.gids: must hold exactly one mapping, holds 2',
      { namespaceOptions: { usernsOptions: { mode: 'POD', uids: [range()], gids: [range(), range()] } } },
    ],
    [
      'namespace_options.userns_options.uids[0].container_id: must be 0',
      { namespaceOptions: { usernsOptions: { mode: 'POD', uids: [range({ containerId: 1 })], gids: [range()] } } },
    ],
    [
      'namespace_options.userns_options.uids[0].length: must be at least 1',
      { namespaceOptions: { usernsOptions: { mode: 'POD', uids: [range({ length: 0 })], gids: [range()] } } },
    ],
    [
      'namespace_options.userns_options: mappings need the mode POD',
      { namespaceOptions: { usernsOptions: { mode: 'NODE', uids: [range()], gids: [range()] } } },
    ],
    [
      'namespace_options.ipc: must not be NODE',
      { namespaceOptions: { ipc: 'NODE', usernsOptions: { mode: 'POD', uids: [range()], gids: [range()] } } },
    ],
    ['run_as_user.value: must be at least 0', { runAsUser: { value: '-1' } }],
    ['run_as_group: needs run_as_user', { runAsGroup: { value: '5' } }],
    ['supplemental_groups[1]: must be at most', { supplementalGroups: ['1', '4294967295'] }],
    ['supplemental_groups_policy: must be one of', { supplementalGroupsPolicy: 7 }],
    ['seccomp.localhost_ref: must not be empty', { seccomp: { profileType: 'Localhost' } }],
    ['seccomp.localhost_ref: must be empty', { seccomp: { profileType: 'Unconfined', localhostRef: '/x' } }],
    ['seccomp_profile_path: must be "unconfined"', { seccompProfilePath: '/var/lib/kubelet/seccomp/x.json' }],
    ['apparmor.profile_type: must be one of', { apparmor: { profileType: 4 } }],
    ['apparmor: AppArmor is not', { apparmor: { profileType: 'RuntimeDefault' } }],
    ['selinux_options: SELinux is not', { selinuxOptions: { level: 's0:c1,c2' } }],
  ])('config.linux.security_context.%s', (expected, change) => {
    expect(podContext(change)).toContain(`config.linux.security_context.${expected}`);
  });
});

describe('ContainerConfig', () => {
  test('what a kubelet sends is accepted', () => {
    expect(
      container({
        image: { image: 'sha256:1234', userSpecifiedImage: 'registry.example:5000/a/b:latest' },
        command: ['/bin/sh', '-c'],
        args: ['echo "$X"', ''],
        workingDir: '/srv',
        envs: [{ key: 'X', value: Buffer.from('any\nthing=') }],
        mounts: [
          { containerPath: '/data', hostPath: '/var/lib/kubelet/pods/u-1/volumes/x', readonly: true },
          { containerPath: '/dev/termination-log', hostPath: '/var/lib/kubelet/pods/u-1/containers/c/1' },
        ],
        devices: [{ containerPath: '/dev/fuse', hostPath: '/dev/fuse', permissions: 'rwm' }],
        logPath: 'web/0.log',
        linux: {
          resources: {
            cpuShares: '1024',
            memorySwapLimitInBytes: '0',
            hugepageLimits: [{ pageSize: '2MB', limit: '0' }],
          },
          securityContext: {
            capabilities: { addCapabilities: ['NET_ADMIN'], dropCapabilities: ['ALL'] },
            namespaceOptions: { pid: 'TARGET', targetId: 'abc' },
            runAsUsername: 'nobody',
            runAsGroup: { value: '0' },
            maskedPaths: ['/proc/kcore'],
            readonlyPaths: ['/proc/sys'],
          },
        },
      }),
    ).toBe('accepted');
  });

  test.each<[string, object]>([
    ['metadata: must be set', { metadata: null }],
    ['metadata.name: must not be empty', { metadata: { name: '', attempt: 0 } }],
    ['image: must be set', { image: null }],
    ['image.image: must not be empty', { image: { image: '' } }],
    ['image.image: must be an image reference', { image: { image: '--tls-verify=false' } }],
    ['image.image: must be an image reference', { image: { image: 'a b' } }],
    ['command[0]: must not contain a NUL', { command: ['a\0b'] }],
    ['args[1]: must not contain a NUL', { args: ['', '\0'] }],
    ['working_dir: must be an absolute path', { workingDir: 'srv' }],
    ['envs[0].key: must not be empty', { envs: [{ key: '', value: Buffer.alloc(0) }] }],
    ['envs[0].key: must not contain "="', { envs: [{ key: 'A=B', value: Buffer.alloc(0) }] }],
    ['envs[0].value: must not contain a NUL', { envs: [{ key: 'A', value: Buffer.of(0) }] }],
    ['mounts[0].container_path: must be an absolute path', { mounts: [{ containerPath: 'x', hostPath: '/x' }] }],
    ['mounts[0].host_path: must not be empty', { mounts: [{ containerPath: '/x', hostPath: '' }] }],
    ['mounts[0].host_path: must not contain ".."', { mounts: [{ containerPath: '/x', hostPath: '/a/../../etc' }] }],
    [
      'mounts[0].host_path: must not be longer',
      { mounts: [{ containerPath: '/x', hostPath: `/${'a'.repeat(5000)}` }] },
    ],
    ['mounts[0].propagation: must be', { mounts: [{ containerPath: '/x', hostPath: '/x', propagation: 9 }] }],
    [
      'mounts[0].recursive_read_only: needs readonly',
      { mounts: [{ containerPath: '/x', hostPath: '/x', recursiveReadOnly: true }] },
    ],
    ['mounts[0].image: image volumes', { mounts: [{ containerPath: '/x', image: { image: 'a' } }] }],
    [
      'mounts[0].mount_options[1]: must be one of',
      { mounts: [{ containerPath: '/x', hostPath: '/x', mountOptions: ['noexec', 'rbind'] }] },
    ],
    [
      'mounts[0].uidMappings: and gidMappings must be set together',
      { mounts: [{ containerPath: '/x', hostPath: '/x', uidMappings: [range()] }] },
    ],
    [
      'mounts[0].gidMappings[0].length: must be at least 1',
      {
        mounts: [{ containerPath: '/x', hostPath: '/x', uidMappings: [range()], gidMappings: [range({ length: 0 })] }],
      },
    ],
    ['devices[0].permissions: must', { devices: [{ containerPath: '/d', hostPath: '/d', permissions: 'rwx' }] }],
    ['CDI_devices[0].name: must not be empty', { CDIDevices: [{ name: '' }] }],
    ['CDI_devices[1].name: must be of the form', { CDIDevices: [{ name: 'vendor.example/gpu=0' }, { name: 'gpu' }] }],
    ['log_path: must be relative', { logPath: '/etc/passwd' }],
    ['log_path: must not contain ".."', { logPath: 'a/../../b.log' }],
    ['log_path: must name a file', { logPath: 'a/' }],
    ['stop_signal: is no known value', { stopSignal: 500 }],
    ['windows: containers run Linux here', { windows: {} }],
    ['linux.resources.memory_limit_in_bytes: must be at least', { linux: { resources: { memoryLimitInBytes: '-5' } } }],
  ])('config.%s', (expected, change) => {
    expect(container(change)).toContain(`config.${expected}`);
  });

  test.each<[string, object]>([
    ['namespace_options.target_id: must not be empty', { namespaceOptions: { pid: 'TARGET' } }],
    ['run_as_username: must not be set together', { runAsUser: { value: '1' }, runAsUsername: 'x' }],
    ['run_as_group: needs run_as_user', { runAsGroup: { value: '1' } }],
    ['capabilities.add_capabilities[0]: is no capability', { capabilities: { addCapabilities: ['CAP SYS'] } }],
    ['apparmor: AppArmor is not', { apparmor: { profileType: 'Localhost', localhostRef: 'x' } }],
    ['apparmor_profile: AppArmor is not', { apparmorProfile: 'runtime/default' }],
    ['seccomp_profile_path: must be', { seccompProfilePath: 'relative.json' }],
    ['selinux_options: SELinux is not', { selinuxOptions: { type: 'spc_t' } }],
    ['masked_paths[0]: must be an absolute path', { maskedPaths: ['proc'] }],
    ['readonly_paths[0]: must be an absolute path', { readonlyPaths: ['proc'] }],
  ])('config.linux.security_context.%s', (expected, change) => {
    expect(context(change)).toContain(`config.linux.security_context.${expected}`);
  });

  test('no log path that is accepted leaves the log directory', () => {
    const piece = fc.constantFrom('..', '.', 'a', '', 'b.log', '...', '..a');
    fc.assert(
      fc.property(fc.array(piece, { minLength: 1, maxLength: 6 }), (pieces) => {
        const logPath = pieces.join('/');
        fc.pre(container({ logPath }) === 'accepted');
        const inside = new URL(`file:///logs/${logPath}`).pathname;
        expect(inside.startsWith('/logs/')).toBe(true);
      }),
    );
  });
});

test('time-outs: negative ones are refused, endless ones cut', () => {
  expect(refusal(() => seconds('timeout', '-1'))).toContain('timeout: must be at least 0');
  expect(seconds('timeout', '30')).toBe(30);
  expect(seconds('timeout', '9223372036854775807')).toBe(365 * 24 * 3600);
});

test('the output of ExecSync fits into the message, and neither stream starves the other', () => {
  fc.assert(
    fc.property(fc.nat(300), fc.nat(300), fc.integer({ min: 1, max: 300 }), (out, err, room) => {
      const [stdout, stderr] = cutToRoom(Buffer.alloc(out), Buffer.alloc(err), room);
      expect(stdout.length + stderr.length).toBe(Math.min(out + err, room));
      expect(stdout.length).toBeGreaterThanOrEqual(Math.min(out, Math.floor(room / 2)));
      expect(stderr.length).toBeGreaterThanOrEqual(Math.min(err, Math.floor(room / 2)));
    }),
  );
});
