/** What kind of mount the kubelet passes, told from its path below the kubelet's pods directory. Pure. */

export type MountKind =
  /** Scratch space of the pod, shared by its containers, empty at first. */
  | 'emptyDir'
  /** ConfigMap, Secret, projected, downward API: read, replaced by the kubelet when the object changes. */
  | 'api'
  /** A single file the kubelet made for one container: /etc/hosts, the termination message. */
  | 'kubeletFile'
  /** A directory or file of a volume (subPath), which the kubelet has mounted by itself. */
  | 'subPath'
  /** A volume plugin's directory: the data lives outside the node's own disk. */
  | 'plugin'
  /** Anything else of the node's file system. */
  | 'hostPath';

const API_PLUGINS: ReadonlySet<string> = new Set(['configmap', 'secret', 'projected', 'downward-api']);

export function classifyMount(hostPath: string): MountKind {
  const volume = /\/pods\/[^/]+\/volumes\/kubernetes\.io~([^/]+)\//.exec(`${hostPath}/`)?.[1];
  if (volume === 'empty-dir') return 'emptyDir';
  if (volume !== undefined && API_PLUGINS.has(volume)) return 'api';
  if (volume !== undefined) return 'plugin';
  if (SUBPATH.test(hostPath)) return 'subPath';
  if (/\/pods\/[^/]+\/(etc-hosts$|containers\/)/.test(hostPath)) return 'kubeletFile';
  return 'hostPath';
}

const SUBPATH = /^(.*\/pods\/[^/]+)\/volume-subpaths\/([^/]+)\//;

/** Where the emptyDir would be whose subPath this is. */
export function emptyDirOfSubPath(hostPath: string): string | undefined {
  const [, pod, volume] = SUBPATH.exec(hostPath) ?? [];
  return pod === undefined ? undefined : `${pod}/volumes/kubernetes.io~empty-dir/${volume}`;
}
