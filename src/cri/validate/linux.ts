/** Checks of what sandboxes and containers have in common: namespaces, users, profiles, resources. */

import { pageBytes } from '../../container/huge-pages.ts';
import type { IDMapping__Output } from '../../gen/runtime/v1/IDMapping.ts';
import type { Int64Value__Output } from '../../gen/runtime/v1/Int64Value.ts';
import type { LinuxContainerResources__Output } from '../../gen/runtime/v1/LinuxContainerResources.ts';
import type { NamespaceOption__Output } from '../../gen/runtime/v1/NamespaceOption.ts';
import type { SELinuxOption__Output } from '../../gen/runtime/v1/SELinuxOption.ts';
import type { SecurityProfile__Output } from '../../gen/runtime/v1/SecurityProfile.ts';
import { profileOfPath } from '../../volume/seccomp.ts';
import { FEATURES } from '../features.ts';
import { invalid, nonEmpty, oneOf, quote, range64, text } from './fields.ts';

const MAX_ID = 2n ** 32n - 2n;
/** Kubernetes takes 256 KiB of annotations; the kubelet adds its own. */
const MAX_PAIRS_BYTES = 1024 * 1024;

/** Modes that make sense for the PID namespace of a pod, or of a container. */
export const POD_PID_MODES = ['POD', 'CONTAINER', 'NODE'] as const;
export const CONTAINER_PID_MODES = ['POD', 'CONTAINER', 'NODE', 'TARGET'] as const;

export function checkNamespaces(
  path: string,
  options: NamespaceOption__Output | null,
  pidModes: readonly string[],
): void {
  if (!options) return;
  oneOf(`${path}.network`, options.network, ['POD', 'NODE']);
  oneOf(`${path}.pid`, options.pid, pidModes);
  oneOf(`${path}.ipc`, options.ipc, ['POD', 'NODE']);
  if (options.pid === 'TARGET') nonEmpty(`${path}.target_id`, options.targetId);
  const users = options.usernsOptions;
  if (!users) return;
  oneOf(`${path}.userns_options.mode`, users.mode, ['POD', 'NODE']);
  if (users.mode === 'POD' && !FEATURES.userNamespaces) {
    invalid(`${path}.userns_options.mode`, 'user namespaces are not supported; the pod has its own kernel');
  }
  if (users.mode === 'NODE' && (users.uids.length > 0 || users.gids.length > 0)) {
    invalid(`${path}.userns_options`, 'mappings need the mode POD');
  }
  if (users.mode !== 'POD') return;
  for (const kind of ['pid', 'ipc'] as const) {
    if (options[kind] === 'NODE') invalid(`${path}.${kind}`, 'must not be NODE in a user namespace of the pod');
  }
  checkMapping(`${path}.userns_options.uids`, users.uids);
  checkMapping(`${path}.userns_options.gids`, users.gids);
}

/** One range that begins with the container's root, as everywhere: images are prepared for one range only. */
function checkMapping(path: string, mappings: readonly IDMapping__Output[]): void {
  const [mapping] = mappings;
  if (!mapping || mappings.length > 1) invalid(path, `must hold exactly one mapping, holds ${mappings.length}`);
  if (mapping.containerId !== 0) invalid(`${path}[0].container_id`, `must be 0, is ${mapping.containerId}`);
  checkRange(`${path}[0]`, mapping);
}

/** Mappings of a mount. */
export function checkRange(path: string, { hostId, containerId, length }: IDMapping__Output): void {
  if (length < 1) invalid(`${path}.length`, 'must be at least 1');
  if (Math.max(hostId, containerId) + length > 2 ** 32 - 1) invalid(path, 'must end below 2^32 - 1');
}

interface Users {
  readonly runAsUser: Int64Value__Output | null;
  readonly runAsGroup: Int64Value__Output | null;
  readonly runAsUsername?: string;
  readonly supplementalGroups: readonly string[];
  readonly supplementalGroupsPolicy: string;
}

export function checkUsers(path: string, users: Users): void {
  if (users.runAsUser) range64(`${path}.run_as_user.value`, users.runAsUser.value, 0n, MAX_ID);
  if (users.runAsUser && users.runAsUsername) {
    invalid(`${path}.run_as_username`, 'must not be set together with run_as_user');
  }
  if (users.runAsUsername) text(`${path}.run_as_username`, users.runAsUsername);
  if (users.runAsGroup) {
    range64(`${path}.run_as_group.value`, users.runAsGroup.value, 0n, MAX_ID);
    if (!users.runAsUser && !users.runAsUsername) invalid(`${path}.run_as_group`, 'needs run_as_user');
  }
  for (const [index, group] of users.supplementalGroups.entries()) {
    range64(`${path}.supplemental_groups[${index}]`, group, 0n, MAX_ID);
  }
  oneOf(`${path}.supplemental_groups_policy`, users.supplementalGroupsPolicy, ['Merge', 'Strict']);
  if (users.supplementalGroupsPolicy === 'Strict' && !FEATURES.supplementalGroupsPolicy) {
    invalid(`${path}.supplemental_groups_policy`, 'Strict is not supported');
  }
}

function checkProfile(path: string, profile: SecurityProfile__Output | null): void {
  if (!profile) return;
  oneOf(`${path}.profile_type`, profile.profileType, ['RuntimeDefault', 'Unconfined', 'Localhost']);
  if (profile.profileType === 'Localhost') nonEmpty(`${path}.localhost_ref`, profile.localhostRef);
  else if (profile.localhostRef !== '') invalid(`${path}.localhost_ref`, 'must be empty unless the type is Localhost');
}

interface Profiles {
  readonly seccomp: SecurityProfile__Output | null;
  readonly seccompProfilePath: string;
  readonly apparmor: SecurityProfile__Output | null;
  readonly apparmorProfile?: string;
  readonly selinuxOptions: SELinuxOption__Output | null;
}

/** What confines processes beside capabilities; a machine has what its kernel has. */
export function checkProfiles(path: string, profiles: Profiles): void {
  checkProfile(`${path}.seccomp`, profiles.seccomp);
  checkProfilePath(`${path}.seccomp_profile_path`, profiles.seccompProfilePath);
  checkProfile(`${path}.apparmor`, profiles.apparmor);
  checkProfilePath(`${path}.apparmor_profile`, profiles.apparmorProfile ?? '');
  if (!FEATURES.appArmor) {
    const why = "AppArmor is not in the pod's machine; leave it out or ask for Unconfined";
    if ((profiles.apparmor?.profileType ?? 'Unconfined') !== 'Unconfined') invalid(`${path}.apparmor`, why);
    if (!['', 'unconfined'].includes(profiles.apparmorProfile ?? '')) invalid(`${path}.apparmor_profile`, why);
  }
  const { selinuxOptions } = profiles;
  const named = selinuxOptions && Object.values(selinuxOptions).some((value) => value !== '');
  if (named) invalid(`${path}.selinux_options`, "SELinux is not in the pod's machine; leave it out");
}

/** The deprecated form of both kinds of profile. */
function checkProfilePath(path: string, value: string): void {
  text(path, value, 4096);
  const known = value === '' || profileOfPath(value) !== undefined;
  if (!known) invalid(path, `must be "unconfined", "runtime/default" or "localhost/…", is ${quote(value)}`);
}

export function checkResources(path: string, resources: LinuxContainerResources__Output | null): void {
  if (!resources) return;
  range64(`${path}.cpu_period`, resources.cpuPeriod, 0n, 1_000_000n);
  range64(`${path}.cpu_quota`, resources.cpuQuota, -1n);
  range64(`${path}.cpu_shares`, resources.cpuShares, 0n);
  // -1 is the CRI's "no limit" for updates.
  range64(`${path}.memory_limit_in_bytes`, resources.memoryLimitInBytes, -1n);
  range64(`${path}.memory_swap_limit_in_bytes`, resources.memorySwapLimitInBytes, -1n);
  range64(`${path}.oom_score_adj`, resources.oomScoreAdj, -1000n, 1000n);
  for (const key of ['cpusetCpus', 'cpusetMems'] as const) {
    const field = key === 'cpusetCpus' ? 'cpuset_cpus' : 'cpuset_mems';
    if (!/^[0-9,-]*$/.test(resources[key])) invalid(`${path}.${field}`, 'must be a list such as "0-3,7"');
  }
  for (const [index, limit] of resources.hugepageLimits.entries()) {
    if (pageBytes(limit.pageSize) === undefined) {
      invalid(`${path}.hugepage_limits[${index}].page_size`, `must be of the form "2MB", is ${quote(limit.pageSize)}`);
    }
  }
  for (const key of Object.keys(resources.unified)) {
    if (!/^[a-z0-9_.]+$/.test(key)) invalid(`${path}.unified[${JSON.stringify(key)}]`, 'is no cgroup file name');
  }
}

/** Labels and annotations: any text, within reason. */
export function checkPairs(path: string, pairs: Readonly<Record<string, string>>): void {
  let size = 0;
  for (const [key, value] of Object.entries(pairs)) {
    if (key === '') invalid(path, 'must not have an empty key');
    size += Buffer.byteLength(key) + Buffer.byteLength(value);
  }
  if (size > MAX_PAIRS_BYTES) {
    invalid(path, `must not hold more than ${MAX_PAIRS_BYTES} bytes, holds ${size}`);
  }
}
