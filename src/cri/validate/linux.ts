/** Checks of what sandboxes and containers have in common: namespaces, users, profiles, resources. */
import type { Int64Value__Output } from '../../gen/runtime/v1/Int64Value.ts';
import type { LinuxContainerResources__Output } from '../../gen/runtime/v1/LinuxContainerResources.ts';
import type { NamespaceOption__Output } from '../../gen/runtime/v1/NamespaceOption.ts';
import type { SecurityProfile__Output } from '../../gen/runtime/v1/SecurityProfile.ts';
import type { Features } from '../features.ts';
import { invalid, nonEmpty, oneOf, range64, text } from './fields.ts';

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
  features: Features,
): void {
  if (!options) return;
  oneOf(`${path}.network`, options.network, ['POD', 'NODE']);
  oneOf(`${path}.pid`, options.pid, pidModes);
  oneOf(`${path}.ipc`, options.ipc, ['POD', 'NODE']);
  if (options.pid === 'TARGET') nonEmpty(`${path}.target_id`, options.targetId);
  const users = options.usernsOptions;
  if (!users) return;
  oneOf(`${path}.userns_options.mode`, users.mode, ['POD', 'NODE']);
  if (users.mode === 'POD' && !features.userNamespaces) {
    invalid(`${path}.userns_options.mode`, 'user namespaces are not supported; the pod has its own kernel');
  }
  if (users.mode === 'NODE' && (users.uids.length > 0 || users.gids.length > 0)) {
    invalid(`${path}.userns_options`, 'mappings need the mode POD');
  }
}

interface Users {
  readonly runAsUser: Int64Value__Output | null;
  readonly runAsGroup: Int64Value__Output | null;
  readonly runAsUsername?: string;
  readonly supplementalGroups: readonly string[];
  readonly supplementalGroupsPolicy: string;
}

export function checkUsers(path: string, users: Users, features: Features): void {
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
  if (users.supplementalGroupsPolicy === 'Strict' && !features.supplementalGroupsPolicy) {
    invalid(`${path}.supplemental_groups_policy`, 'Strict is not supported');
  }
}

export function checkProfile(path: string, profile: SecurityProfile__Output | null): void {
  if (!profile) return;
  oneOf(`${path}.profile_type`, profile.profileType, ['RuntimeDefault', 'Unconfined', 'Localhost']);
  if (profile.profileType === 'Localhost') nonEmpty(`${path}.localhost_ref`, profile.localhostRef);
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
    nonEmpty(`${path}.hugepage_limits[${index}].page_size`, limit.pageSize);
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
