/**
 * Everything of the CRI that confines or frees processes, looked at from inside: what the kernel says of a process counts,
 * not what was asked for.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ContainerConfig } from '../../src/gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerSecurityContext } from '../../src/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import type { LinuxSandboxSecurityContext } from '../../src/gen/runtime/v1/LinuxSandboxSecurityContext.ts';
import { TestNode } from '../support/node.ts';
import { type TestContainer, TestPod } from '../support/pods.ts';

let node: TestNode;
beforeAll(async () => {
  node = await TestNode.start();
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

const sleep = 'sleep 1000';
const secured = (securityContext: LinuxContainerSecurityContext, rest: ContainerConfig = {}): ContainerConfig => ({
  ...rest,
  // A PID namespace of its own, as kubelets ask for: process 1 is the container's.
  linux: { ...rest.linux, securityContext: { namespaceOptions: { pid: 'CONTAINER' }, ...securityContext } },
});
const podSecured = (securityContext: LinuxSandboxSecurityContext, sysctls = {}) => ({
  linux: { sysctls, securityContext },
});

/** A line of /proc/PID/status. */
async function kernelSays(container: TestContainer, key: string, pid = 'self'): Promise<string> {
  return await container.sh(`grep '^${key}:' /proc/${pid}/status | tr -s '\\t ' ' ' | sed 's/^[^:]*: *//; s/ *$//'`);
}
const namespace = (container: TestContainer, kind: string, pid: number | string = 'self') =>
  container.sh(`readlink /proc/${pid}/ns/${kind}`);
const bit = (capability: number) => 1n << BigInt(capability);
const CAP = { chown: bit(0), netBindService: bit(10), netRaw: bit(13), sysAdmin: bit(21) };
const capabilities = async (container: TestContainer, set: string) => BigInt(`0x${await kernelSays(container, set)}`);

/** A profile that lets everything through but mkdir. */
async function noMkdir(): Promise<string> {
  const path = join(node.directory, 'no-mkdir.json');
  const syscalls = [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO' }];
  await writeFile(path, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls }));
  return path;
}

describe('in an ordinary pod', () => {
  let pod: TestPod;
  beforeAll(async () => {
    pod = await TestPod.run(node);
  });
  afterAll(async () => {
    await pod.remove();
  });

  test('user, group and groups: those asked for, with those of the image; an exec has them, too; the status tells', async () => {
    const user = { runAsUser: { value: '33' }, runAsGroup: { value: '7' }, supplementalGroups: ['1234'] };
    const merged = await pod.start(sleep, secured(user));
    // The image's /etc/group has www-data (33) in staff (50).
    for (const pid of ['1', 'self']) {
      expect(await kernelSays(merged, 'Uid', pid)).toBe('33 33 33 33');
      expect(await kernelSays(merged, 'Gid', pid)).toBe('7 7 7 7');
      expect((await kernelSays(merged, 'Groups', pid)).split(' ')).toEqual(expect.arrayContaining(['50', '1234']));
    }
    const strict = await pod.start(sleep, secured({ ...user, supplementalGroupsPolicy: 'Strict' }));
    for (const pid of ['1', 'self']) expect(await kernelSays(strict, 'Groups', pid)).toBe('7 1234');
    expect((await strict.status()).user?.linux).toEqual({ uid: '33', gid: '7', supplementalGroups: ['7', '1234'] });
    expect((await merged.status()).user?.linux?.supplementalGroups).toContain('50');
    const named = await pod.start(sleep, secured({ runAsUsername: 'www-data' }));
    expect(await kernelSays(named, 'Uid', '1')).toBe('33 33 33 33');
    const { features } = await node.cri.Status({});
    expect(features).toMatchObject({ supplementalGroupsPolicy: true, userNamespacesHostNetwork: true });
  });

  test('capabilities: dropped, added, ambient', async () => {
    const none = await pod.start(sleep, secured({ capabilities: { dropCapabilities: ['ALL'] } }));
    for (const set of ['CapEff', 'CapPrm', 'CapBnd', 'CapAmb']) expect(await capabilities(none, set)).toBe(0n);
    const some = await pod.start(
      sleep,
      secured({ capabilities: { addCapabilities: ['SYS_ADMIN'], dropCapabilities: ['NET_RAW'] } }),
    );
    const effective = await capabilities(some, 'CapEff');
    expect(effective & CAP.sysAdmin).toBe(CAP.sysAdmin);
    expect(effective & CAP.chown).toBe(CAP.chown);
    expect(effective & CAP.netRaw).toBe(0n);
    const ambient = await pod.start(
      sleep,
      secured({
        runAsUser: { value: '1000' },
        capabilities: { dropCapabilities: ['ALL'], addAmbientCapabilities: ['NET_BIND_SERVICE'] },
      }),
    );
    // A process that is not root keeps nothing else.
    expect(await capabilities(ambient, 'CapEff')).toBe(CAP.netBindService);
    expect(await capabilities(ambient, 'CapAmb')).toBe(CAP.netBindService);
  });

  test('seccomp: the default profile, none, one of the node, by both fields; no new privileges', async () => {
    const path = await noMkdir();
    const cases: readonly [LinuxContainerSecurityContext, string, number][] = [
      [{}, '0', 0],
      [{ seccomp: { profileType: 'Unconfined' } }, '0', 0],
      [{ seccomp: { profileType: 'RuntimeDefault' }, noNewPrivs: true }, '2', 0],
      [{ seccomp: { profileType: 'Localhost', localhostRef: path } }, '2', 1],
      [{ seccompProfilePath: `localhost/${path}` }, '2', 1],
      [{ seccompProfilePath: 'runtime/default' }, '2', 0],
    ];
    for (const [context, mode, refused] of cases) {
      const container = await pod.start(sleep, secured(context));
      expect([context, await kernelSays(container, 'Seccomp', '1')]).toEqual([context, mode]);
      expect(await kernelSays(container, 'NoNewPrivs', '1')).toBe(context.noNewPrivs ? '1' : '0');
      expect((await container.exec('/bin/mkdir', '/tmp/x')).exitCode).toBe(refused);
    }
    const missing = { seccomp: { profileType: 'Localhost' as const, localhostRef: '/no/such/profile.json' } };
    await expect(pod.create(sleep, secured(missing))).rejects.toMatchObject({
      code: 3,
      details: expect.stringContaining('/no/such/profile.json'),
    });
  });

  test('read-only root, masked and read-only paths, OOM score, ulimits, limits of the cgroup, huge pages', async () => {
    const container = await pod.start(sleep, {
      linux: {
        securityContext: {
          namespaceOptions: { pid: 'CONTAINER' },
          readonlyRootfs: true,
          maskedPaths: ['/proc/version', '/sys/firmware'],
          readonlyPaths: ['/proc/sys'],
        },
        resources: {
          oomScoreAdj: '321',
          memoryLimitInBytes: String(64 * 2 ** 20),
          cpuQuota: '50000',
          cpuPeriod: '100000',
          // A kubelet sends all sizes of the node; machines have not all of them.
          hugepageLimits: [
            { pageSize: '2MB', limit: String(4 * 2 ** 20) },
            { pageSize: '16GB', limit: '0' },
          ],
          unified: { 'memory.high': String(48 * 2 ** 20), 'pids.max': '77' },
        },
      },
    });
    expect((await container.exec('/bin/touch', '/x')).stderr).toContain('Read-only file system');
    expect(await container.sh('cat /proc/version; ls /sys/firmware')).toBe('');
    expect((await container.exec('/bin/sh', '-c', 'echo x > /proc/sys/kernel/hostname')).exitCode).not.toBe(0);
    expect(await container.sh('cat /proc/1/oom_score_adj')).toBe('321');
    // The CRI does not name any; they must not be those that a service of the machine happens to have.
    expect(await container.sh('ulimit -n; ulimit -Hn')).toBe('1048576\n1048576');
    expect(await container.sh("sed -n 's/^HugePages_Total: *//p' /proc/meminfo")).toBe('2');
    const group = '/sys/fs/cgroup';
    expect(await container.sh(`cd ${group}; cat memory.max cpu.max hugetlb.2MB.max memory.high pids.max`)).toBe(
      ['67108864', '50000 100000', '4194304', '50331648', '77'].join('\n'),
    );
  });

  test("PID namespaces: one's own, or another container's", async () => {
    const target = await pod.start('sleep 4321', secured({ namespaceOptions: { pid: 'CONTAINER' } }));
    const joined = await pod.start(sleep, secured({ namespaceOptions: { pid: 'TARGET', targetId: target.id } }));
    const alone = await pod.start(sleep, secured({ namespaceOptions: { pid: 'CONTAINER' } }));
    expect(await namespace(joined, 'pid')).toBe(await namespace(target, 'pid'));
    expect(await namespace(alone, 'pid')).not.toBe(await namespace(target, 'pid'));
    expect(await joined.sh('ps -o args')).toContain('sleep 4321');
    expect(await alone.sh('ps -o args')).not.toContain('sleep 4321');
    // All of a pod share network, IPC and host name.
    for (const kind of ['net', 'ipc', 'uts']) {
      expect(await namespace(alone, kind)).toBe(await namespace(target, kind));
    }
    await expect(
      pod.create(sleep, secured({ namespaceOptions: { pid: 'TARGET', targetId: 'nobody' } })),
    ).rejects.toMatchObject({ code: 5, details: expect.stringContaining('nobody') });
  });

  test.each<[string, ContainerConfig]>([
    ['config.linux.security_context.apparmor', secured({ apparmor: { profileType: 'RuntimeDefault' } })],
    ['config.linux.security_context.selinux_options', secured({ selinuxOptions: { type: 'spc_t' } })],
    ['no privileged container allowed', secured({ privileged: true })],
    [
      'config.devices[0].host_path',
      { devices: [{ hostPath: '/dev/absent', containerPath: '/dev/x', permissions: 'r' }] },
    ],
    [
      'config.linux.resources.hugepage_limits: the machine has memory for',
      { linux: { resources: { hugepageLimits: [{ pageSize: '2MB', limit: String(2 ** 40) }] } } },
    ],
    ['config.CDI_devices', { CDIDevices: [{ name: 'example.com/absent=0' }] }],
  ])('what is not there is refused: %s', async (field, config) => {
    await expect(pod.create(sleep, config)).rejects.toMatchObject({ details: expect.stringContaining(field) });
  });
});

describe('in a privileged pod with the namespaces of its machine', () => {
  let pod: TestPod;
  let root: TestContainer;
  const namespaceOptions = { network: 'NODE', pid: 'NODE', ipc: 'NODE' } as const;
  beforeAll(async () => {
    const sysctls = { 'net.core.somaxconn': '321', 'net.ipv4.ip_local_port_range': '20000 30000' };
    const { linux } = podSecured({ privileged: true, namespaceOptions }, sysctls);
    pod = await TestPod.run(node, { linux: { ...linux, cgroupParent: '/kubepods/burstable/podof' } });
    root = await pod.start(sleep, secured({ privileged: true, namespaceOptions }));
  });
  afterAll(async () => {
    await pod.remove();
  });

  test('PID and IPC are those of the machine; the network is the pod’s own', async () => {
    for (const kind of ['pid', 'ipc']) expect(await namespace(root, kind)).toBe(await namespace(root, kind, 1));
    expect(await namespace(root, 'net')).not.toBe(await namespace(root, 'net', 1));
    expect(await root.sh('cat /proc/1/comm')).toBe('init');
    expect(await root.sh('ls /sys/class/net')).not.toContain('eth1');
  });

  test('its cgroup is that of the machine’s pod, whatever the node calls it', async () => {
    expect(await root.sh('cat /proc/self/cgroup')).toMatch(/^0::\/pod\/[0-9a-f]{64}$/);
  });

  test('sysctls are set, also those called unsafe', async () => {
    expect(
      await root.sh('cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/ip_local_port_range | tr -s "\\t" " "'),
    ).toBe('321\n20000 30000');
  });

  test('privileged: all capabilities, no seccomp, devices of the machine', async () => {
    expect(await capabilities(root, 'CapEff')).toBe(await capabilities(root, 'CapBnd'));
    expect((await capabilities(root, 'CapEff')) & CAP.sysAdmin).toBe(CAP.sysAdmin);
    expect(await kernelSays(root, 'Seccomp')).toBe('0');
    expect(await root.sh('ls /dev')).toContain('vda');
    const given = await pod.start(sleep, {
      devices: [{ hostPath: '/dev/kmsg', containerPath: '/dev/messages', permissions: 'r' }],
      linux: { securityContext: { namespaceOptions } },
    });
    expect(await given.sh("stat -c '%t:%T' /dev/messages")).toBe('1:b');
    expect((await given.exec('/bin/sh', '-c', ': > /dev/messages')).exitCode).not.toBe(0);
  });

  test('CDI devices come from specifications in the machine', async () => {
    const device = {
      name: 'note',
      containerEdits: { env: ['CDI=here'], deviceNodes: [{ path: '/dev/note', hostPath: '/dev/kmsg' }] },
    };
    const specification = JSON.stringify({ cdiVersion: '0.5.0', kind: 'example.com/paper', devices: [device] });
    const inMachine = (script: string) => root.sh(`nsenter -t 1 -m /bin/sh -c '${script}'`);
    await inMachine(
      `mkdir -p /run/cdi && echo "$(echo ${Buffer.from(specification).toString('base64')} | base64 -d)" > /run/cdi/example.json`,
    );
    const container = await pod.start(sleep, {
      CDIDevices: [{ name: 'example.com/paper=note' }],
      linux: { securityContext: { namespaceOptions } },
    });
    expect(await container.sh("echo $CDI; stat -c '%t:%T' /dev/note")).toBe('here\n1:b');
  });

  test('a read-only mount is read-only below only when it is asked to be', async () => {
    const source = join(node.directory, 'tree');
    await mkdir(join(source, 'below'), { recursive: true });
    const mount = { containerPath: '/tree', hostPath: source, readonly: true };
    const context = { linux: { securityContext: { namespaceOptions } } };
    await pod.start(sleep, { ...context, mounts: [mount] });
    await root.sh(`nsenter -t 1 -m /bin/sh -c 'mount -t tmpfs below /scratch/volumes/*/below'`);
    const plain = await pod.start(sleep, { ...context, mounts: [mount] });
    const all = await pod.start(sleep, { ...context, mounts: [{ ...mount, recursiveReadOnly: true }] });
    const write = 'touch /tree/x 2>/dev/null; echo $?; touch /tree/below/x 2>/dev/null; echo $?';
    expect(await plain.sh(write)).toBe('1\n0');
    expect(await all.sh(write)).toBe('1\n1');
    const bare = await pod.start(sleep, { ...context, mounts: [{ ...mount, mountOptions: ['noexec'] }] });
    expect(await bare.sh("grep ' /tree ' /proc/self/mountinfo")).toContain('noexec');
  });
});

describe('in a pod with a user namespace and a seccomp profile of its own', () => {
  const mapping = [{ containerId: 0, hostId: 65_536, length: 65_536 }];
  const userns = { usernsOptions: { mode: 'POD', uids: mapping, gids: mapping } } as const;
  let pod: TestPod;
  beforeAll(async () => {
    const seccomp = { profileType: 'Localhost' as const, localhostRef: await noMkdir() };
    pod = await TestPod.run(
      node,
      podSecured({ namespaceOptions: { ...userns, network: 'NODE', pid: 'POD' }, seccomp }),
    );
  });
  afterAll(async () => {
    await pod.remove();
  });

  test('root is nobody in particular in the machine; files of volumes keep their owners; network and sysctls work', async () => {
    const source = join(node.directory, 'owned');
    await mkdir(source);
    await writeFile(join(source, 'file'), 'of root', { mode: 0o600 });
    const container = await pod.start(
      sleep,
      secured(
        { namespaceOptions: { ...userns, pid: 'POD' } },
        {
          mounts: [{ containerPath: '/owned', hostPath: source, uidMappings: mapping, gidMappings: mapping }],
        },
      ),
    );
    expect(await container.sh("tr -s ' ' < /proc/self/uid_map")).toBe(' 0 65536 65536');
    expect(await container.sh("tr -s ' ' < /proc/self/gid_map")).toBe(' 0 65536 65536');
    expect(await container.sh("stat -c '%u %g' /owned/file /bin/busybox /etc/passwd")).toBe('0 0\n0 0\n0 0');
    expect(await container.sh('cat /owned/file; echo more > /owned/new; touch /root/x; stat -c %u /owned/new')).toBe(
      'of root0',
    );
    // With the machine's root it could: this is what the namespace is for.
    expect((await container.exec('/bin/mknod', '/tmp/disk', 'b', '254', '0')).exitCode).not.toBe(0);
    expect(await container.sh("ip -4 -o addr show dev eth0 | sed 's/.*inet //; s/ .*//'")).toContain('10.24');
    // The pod's first process, in the shared PID namespace, runs under the profile of the sandbox.
    expect(await kernelSays(container, 'Seccomp', '1')).toBe('2');
    expect(await kernelSays(container, 'Seccomp')).toBe('0');
  });

  test('is told of as a feature of the runtime handlers', async () => {
    const { runtimeHandlers } = await node.cri.Status({});
    for (const { features } of runtimeHandlers) {
      expect(features).toMatchObject({ userNamespaces: true, recursiveReadOnlyMounts: true });
    }
  });
});

test('a sandbox whose own seccomp profile is not on the node is refused', async () => {
  const seccomp = { profileType: 'Localhost' as const, localhostRef: '/no/such/profile.json' };
  await expect(TestPod.run(node, podSecured({ seccomp }))).rejects.toMatchObject({
    code: 3,
    details: expect.stringContaining('/no/such/profile.json'),
  });
});
