/** What kind of mount the kubelet passes, told from its path below the kubelet's pods directory. Pure. */

export type MountKind =
  /** Scratch space of the pod, shared by its containers, empty at first. */
  | 'emptyDir'
  /** ConfigMap, Secret, projected, downward API: read, replaced by the kubelet when the object changes. */
  | 'api'
  /** The pod's /etc/hosts, which the kubelet keeps. */
  | 'hosts'
  /** A single file the kubelet made for one container: the termination message. */
  | 'kubeletFile'
  /** A directory or file of a volume (subPath), which the kubelet has mounted by itself. */
  | 'subPath'
  /** A volume plugin's directory: the data lives outside the node's own disk. */
  | 'plugin'
  /** Anything else of the node's file system. */
  | 'hostPath';

const API_PLUGINS: ReadonlySet<string> = new Set(['configmap', 'secret', 'projected', 'downward-api']);
/** Plugins of others have their vendor's name: `example.com~disk`. */
const VOLUME = /\/pods\/[^/]+\/volumes\/([^/~]+~[^/]+)\/[^/]+(\/.+)?$/;
const OWN = 'kubernetes.io~';
const SUBPATH = /^(.*\/pods\/[^/]+)\/volume-subpaths\/([^/]+)\//;

export function classifyMount(hostPath: string): MountKind {
  const [, plugin, below] = VOLUME.exec(hostPath.replace(/\/+$/, '')) ?? [];
  const volume = plugin?.startsWith(OWN) ? plugin.slice(OWN.length) : plugin;
  // Only the volume itself is exchanged by the kubelet or made by it; what lies below is a part of it.
  if (volume === 'empty-dir') return below === undefined ? 'emptyDir' : 'subPath';
  if (volume !== undefined && API_PLUGINS.has(volume)) return below === undefined ? 'api' : 'subPath';
  if (volume !== undefined) return 'plugin';
  if (SUBPATH.test(hostPath)) return 'subPath';
  if (/\/pods\/[^/]+\/etc-hosts$/.test(hostPath)) return 'hosts';
  if (/\/pods\/[^/]+\/containers\//.test(hostPath)) return 'kubeletFile';
  return 'hostPath';
}

/** Where the volume of a subPath may lie: its plugin is not in the subPath's own name. */
export function volumeOfSubPath(
  hostPath: string,
): { readonly volumes: string; readonly name: string; readonly plugin?: string } | undefined {
  const [, below, plugin, name] = /^(.*\/pods\/[^/]+\/volumes)\/([^/]+)\/([^/]+)\/./.exec(hostPath) ?? [];
  if (below !== undefined && plugin !== undefined && name !== undefined) return { volumes: below, name, plugin };
  const [, pod, volume] = SUBPATH.exec(hostPath) ?? [];
  return pod === undefined || volume === undefined ? undefined : { volumes: `${pod}/volumes`, name: volume };
}
