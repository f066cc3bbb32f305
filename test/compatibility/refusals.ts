/** Requests that must be refused, by the field that the error has to name. */
import type { ContainerConfig } from '../../src/gen/runtime/v1/ContainerConfig.ts';
import type { PodSandboxConfig } from '../../src/gen/runtime/v1/PodSandboxConfig.ts';
import type { CriClient } from '../support/cri-client.ts';
import type { FieldKey } from './proto.ts';

export interface Subject {
  readonly client: CriClient;
  /** A running pod and a running container of it. */
  readonly podSandboxId: string;
  readonly containerId: string;
  readonly pod: PodSandboxConfig;
  readonly container: ContainerConfig;
}

export interface Refusal {
  readonly fields: readonly FieldKey[];
  /** What the error's text must hold: the field as the CRI spells it. */
  readonly names: RegExp;
  readonly ask: (subject: Subject) => Promise<unknown>;
}

const pod = (fields: readonly FieldKey[], names: RegExp, change: object): Refusal => ({
  fields,
  names,
  ask: ({ client, pod: good }) => client.RunPodSandbox({ config: { ...good, ...change } }),
});
const metadata = (change: object): object => ({
  metadata: { name: 'n', uid: 'u', namespace: 'ns', attempt: 0, ...change },
});
const podSecurity = (change: object): object => ({ linux: { securityContext: change } });
const container = (fields: readonly FieldKey[], names: RegExp, change: object): Refusal => ({
  fields,
  names,
  ask: ({ client, podSandboxId, container: good }) =>
    client.CreateContainer({ podSandboxId, config: { ...good, metadata: { name: 'refused' }, ...change } }),
});
const mount = (fields: readonly FieldKey[], names: RegExp, change: object): Refusal =>
  container(fields, names, { mounts: [{ containerPath: '/m', hostPath: '/tmp', ...change }] });
const security = (fields: readonly FieldKey[], names: RegExp, change: object): Refusal =>
  container(fields, names, { linux: { securityContext: change } });

export const REFUSALS: readonly Refusal[] = [
  {
    fields: ['RunPodSandboxRequest.runtime_handler'],
    names: /^runtime_handler: /,
    ask: ({ client, pod: config }) => client.RunPodSandbox({ config, runtimeHandler: 'other' }),
  },
  pod(['PodSandboxConfig.windows'], /^config\.windows: /, { windows: {} }),
  pod(['PodSandboxMetadata.name'], /^config\.metadata\.name: /, metadata({ name: 'a/b' })),
  pod(['PodSandboxMetadata.uid'], /^config\.metadata\.uid: /, metadata({ uid: '..' })),
  pod(['PodSandboxMetadata.namespace'], /^config\.metadata\.namespace: /, metadata({ namespace: '' })),
  pod(['DNSConfig.servers'], /^config\.dns_config\.servers\[0\]: /, { dnsConfig: { servers: ['dns'] } }),
  pod(['PortMapping.container_port'], /container_port: /, { portMappings: [{ containerPort: 0, hostPort: 1 }] }),
  pod(['PortMapping.host_port'], /host_port: /, { portMappings: [{ containerPort: 1, hostPort: 70_000 }] }),
  pod(['PortMapping.host_ip'], /host_ip: /, { portMappings: [{ containerPort: 1, hostPort: 1, hostIp: 'x' }] }),
  pod(
    ['LinuxSandboxSecurityContext.supplemental_groups_policy'],
    /supplemental_groups_policy: /,
    podSecurity({ supplementalGroupsPolicy: 9 }),
  ),
  pod(['NamespaceOption.network'], /network: /, podSecurity({ namespaceOptions: { network: 'TARGET' } })),
  pod(['NamespaceOption.pid'], /pid: /, podSecurity({ namespaceOptions: { pid: 'TARGET', targetId: 'x' } })),
  pod(['NamespaceOption.ipc'], /ipc: /, podSecurity({ namespaceOptions: { ipc: 'CONTAINER' } })),
  pod(
    ['NamespaceOption.userns_options', 'UserNamespace.mode'],
    /userns_options\.mode: /,
    podSecurity({ namespaceOptions: { usernsOptions: { mode: 'TARGET' } } }),
  ),
  pod(
    ['UserNamespace.uids'],
    /userns_options\.uids: /,
    podSecurity({ namespaceOptions: { usernsOptions: { mode: 'POD' } } }),
  ),
  pod(
    ['UserNamespace.gids'],
    /userns_options\.gids: /,
    podSecurity({ namespaceOptions: { usernsOptions: { mode: 'POD', uids: [{ length: 1 }] } } }),
  ),
  pod(['Int64Value.value'], /run_as_user\.value: /, podSecurity({ runAsUser: { value: '-1' } })),
  pod(['SecurityProfile.profile_type'], /seccomp\.profile_type: /, podSecurity({ seccomp: { profileType: 9 } })),
  pod(['SecurityProfile.localhost_ref'], /localhost_ref: /, podSecurity({ seccomp: { profileType: 'Localhost' } })),
  pod(
    ['LinuxSandboxSecurityContext.seccomp_profile_path'],
    /seccomp_profile_path: /,
    podSecurity({ seccompProfilePath: 'x' }),
  ),
  pod(
    ['LinuxSandboxSecurityContext.apparmor'],
    /apparmor: /,
    podSecurity({ apparmor: { profileType: 'RuntimeDefault' } }),
  ),
  ...(['user', 'role', 'type', 'level'] as const).map((field) =>
    pod(
      ['LinuxSandboxSecurityContext.selinux_options', `SELinuxOption.${field}`],
      /selinux_options: /,
      podSecurity({ selinuxOptions: { [field]: 'x' } }),
    ),
  ),
  container(['ContainerMetadata.name'], /metadata\.name: /, { metadata: { name: '' } }),
  container(['ContainerConfig.working_dir'], /working_dir: /, { workingDir: 'here' }),
  container(['ContainerConfig.log_path'], /log_path: /, { logPath: '../up' }),
  container(['ContainerConfig.windows'], /windows: /, { windows: {} }),
  container(['CDIDevice.name'], /CDI_devices\[0\]\.name: /, { CDIDevices: [{ name: 'gpu' }] }),
  container(['ContainerConfig.stop_signal'], /stop_signal: /, { stopSignal: 500 as never }),
  container(['KeyValue.key'], /envs\[0\]\.key: /, { envs: [{ key: 'a=b' }] }),
  container(['KeyValue.value'], /envs\[0\]\.value: /, { envs: [{ key: 'a', value: Buffer.from([0]) }] }),
  container(['Device.container_path'], /devices\[0\]\.container_path: /, { devices: [{ hostPath: '/dev/null' }] }),
  container(['Device.permissions'], /devices\[0\]\.permissions: /, {
    devices: [{ hostPath: '/dev/null', containerPath: '/dev/n', permissions: 'x' }],
  }),
  container(['ImageSpec.image'], /image\.image: /, { image: { image: '-o' } }),
  container(['LinuxContainerResources.oom_score_adj'], /oom_score_adj: /, {
    linux: { resources: { oomScoreAdj: '2000' } },
  }),
  container(['HugepageLimit.page_size'], /hugepage_limits\[0\]\.page_size: /, {
    linux: { resources: { hugepageLimits: [{ pageSize: 'large', limit: '1' }] } },
  }),
  mount(['Mount.container_path'], /container_path: /, { containerPath: 'm' }),
  mount(['Mount.uidMappings'], /uidMappings: /, { uidMappings: [{ length: 3 }] }),
  mount(['Mount.gidMappings'], /[ug]idMappings: /, { gidMappings: [{ length: 3 }] }),
  mount(['IDMapping.length'], /gidMappings\[0\]\.length: /, { gidMappings: [{ length: 0 }] }),
  mount(['IDMapping.host_id'], /uidMappings\[0\]: /, { uidMappings: [{ hostId: 4294967295, length: 3 }] }),
  mount(['IDMapping.container_id'], /uidMappings\[0\]: /, { uidMappings: [{ containerId: 4294967295, length: 3 }] }),
  mount(['Mount.recursive_read_only'], /recursive_read_only: /, { recursiveReadOnly: true }),
  mount(['Mount.propagation'], / mount propagation: /, { propagation: 'PROPAGATION_HOST_TO_CONTAINER' }),
  mount(['Mount.image'], /\.image: /, { hostPath: '', image: { image: 'app:1' } }),
  mount(['Mount.mount_options'], /mount_options\[0\]: /, { mountOptions: ['rbind'] }),
  security(['NamespaceOption.target_id'], /target_id: /, { namespaceOptions: { pid: 'TARGET' } }),
  security(['LinuxContainerSecurityContext.run_as_username'], /run_as_username: /, {
    runAsUser: { value: '1' },
    runAsUsername: 'u',
  }),
  security(['LinuxContainerSecurityContext.run_as_group'], /run_as_group: /, { runAsGroup: { value: '1' } }),
  security(['LinuxContainerSecurityContext.supplemental_groups_policy'], /supplemental_groups_policy: /, {
    supplementalGroupsPolicy: 9,
  }),
  security(['LinuxContainerSecurityContext.seccomp_profile_path'], /seccomp_profile_path: /, {
    seccompProfilePath: 'x',
  }),
  security(['LinuxContainerSecurityContext.apparmor_profile'], /apparmor_profile: /, {
    apparmorProfile: 'localhost/x',
  }),
  security(['LinuxContainerSecurityContext.apparmor'], /apparmor: /, {
    apparmor: { profileType: 'Localhost', localhostRef: 'x' },
  }),
  security(['LinuxContainerSecurityContext.selinux_options'], /selinux_options: /, { selinuxOptions: { level: 's0' } }),
  security(['LinuxContainerSecurityContext.masked_paths'], /masked_paths\[0\]: /, { maskedPaths: ['x'] }),
  security(['LinuxContainerSecurityContext.readonly_paths'], /readonly_paths\[0\]: /, { readonlyPaths: ['x'] }),
  {
    fields: ['StopContainerRequest.timeout'],
    names: /^timeout: /,
    ask: ({ client, containerId }) => client.StopContainer({ containerId, timeout: '-1' }),
  },
  {
    fields: ['ExecSyncRequest.timeout'],
    names: /^timeout: /,
    ask: ({ client, containerId }) => client.ExecSync({ containerId, cmd: ['x'], timeout: '-1' }),
  },
  {
    fields: ['ExecRequest.stderr'],
    names: /^stderr: /,
    ask: ({ client, containerId }) => client.Exec({ containerId, cmd: ['x'], tty: true, stdout: true, stderr: true }),
  },
  {
    fields: ['AttachRequest.stderr'],
    names: /^stderr: /,
    ask: ({ client, containerId }) => client.Attach({ containerId, tty: true, stdout: true, stderr: true }),
  },
  {
    fields: ['UpdateContainerResourcesRequest.windows'],
    names: /windows: /,
    ask: ({ client, containerId }) => client.UpdateContainerResources({ containerId, windows: {} }),
  },
];
