/** critest specs that do not pass, and why. Names are as critest prints them. */

export interface CritestException {
  readonly spec: string;
  readonly versions: string;
  readonly outcome: 'fails' | 'skipped';
  readonly reason: string;
}

const BOTH = '1.26, 1.36';
const NODE_MOUNTS = "looks at the node's own mount table: a mount made on one side must show, or not, on the other";

export const CRITEST: readonly CritestException[] = [
  {
    spec: 'Container Mount Propagation: mount with `rshared` should support propagation from host to container and vice versa',
    versions: BOTH,
    outcome: 'fails',
    reason: NODE_MOUNTS,
  },
  {
    spec: 'Container Mount Propagation: mount with `rslave` should support propagation from host to container',
    versions: BOTH,
    outcome: 'fails',
    reason: NODE_MOUNTS,
  },
  {
    spec: 'Container Mount Propagation: mount with `rprivate` should not support propagation',
    versions: BOTH,
    outcome: 'fails',
    reason: `expects that a directory made in the container is on the node; hostPath volumes are copied (\`policy.hostPath\`)`,
  },
  {
    spec: 'Security Context NamespaceOption: runtime should support HostIpc is true',
    versions: BOTH,
    outcome: 'fails',
    reason: "looks for a shared memory segment of the node's kernel in the container, which has a kernel of its own",
  },
  {
    spec: 'Security Context NamespaceOption: runtime should support HostNetwork is true',
    versions: BOTH,
    outcome: 'fails',
    reason:
      "looks for a socket of the node's kernel in the container's /proc/net. A hostNetwork pod has its machine's network; the ports that it declares are reached on the node",
  },
  {
    spec: 'Image Manager: public image with digest should be pulled and removed',
    versions: BOTH,
    outcome: 'fails',
    reason:
      'with a local registry only: it names the digest of content that only the public registry has. containerd fails it there, too',
  },
  {
    spec: 'AppArmor (9 specs)',
    versions: '1.36',
    outcome: 'skipped',
    reason: 'critest looks for AppArmor on the node; the guest kernel has none',
  },
  {
    spec: 'benchmarks (5 specs)',
    versions: BOTH,
    outcome: 'skipped',
    reason: 'run with `--benchmark` only',
  },
];
