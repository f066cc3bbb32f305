/**
 * The configuration file's schema: every limit, time and default of the daemon, with unit and reason.
 * Durations and sizes are written with units ("60s", "512Mi") and compiled to milliseconds and bytes.
 */
import { z } from 'zod';
import { LOG_LEVELS } from '../telemetry/log.ts';
import { guest } from './guest.ts';
import { annotationPolicy, profiles } from './placement.ts';
import { pools } from './pools.ts';
import { bytes, duration } from './units.ts';

const server = z.strictObject({
  socket: z.string().startsWith('/').default('/run/infralet/infralet.sock').describe('Unix socket of the CRI server.'),
  socketMode: z
    .string()
    .regex(/^0[0-7]{3}$/)
    .default('0660')
    .describe('File mode of the socket, octal. 0660: root and the group only, since the CRI is root on the node.'),
  maxMessage: bytes('16Mi').describe("Largest CRI message; 16 MiB is the kubelet's own limit."),
  drain: duration('10s').describe('Time that calls in progress get at shutdown before they are cut.'),
  cgroupDriver: z
    .enum(['cgroupfs', 'systemd'])
    .default('cgroupfs')
    .describe('What the kubelet is told to use for its own pod cgroups; containers have theirs inside their machine.'),
});

const streaming = z.strictObject({
  address: z
    .string()
    .default('127.0.0.1')
    .describe('Address of the exec/attach/port-forward server. The kubelet is its only client, so loopback.'),
  port: z.int().min(0).max(65535).default(0).describe('0: any free port; URLs name it.'),
  tokenTtl: duration('60s').describe('Life of a streaming URL until its single use; kubelet connects at once.'),
  maxTokens: z.int().min(1).default(1000).describe('Streaming URLs outstanding at once, against a runaway client.'),
  maxSessions: z.int().min(1).default(1000).describe('Connections at once; each costs a stream into a machine.'),
  maxMessage: bytes('16Mi').describe(
    'Largest WebSocket message of a client; kubectl sends 32 KiB, others a whole stdin.',
  ),
  idle: duration('4h').describe('A streaming connection without a byte for this long is closed (kubelet: 4 h).'),
});

const machine = z.strictObject({
  minCpuMillis: z.int().min(100).default(1000).describe('Smallest machine, thousandths of a CPU: one vCPU.'),
  maxCpuMillis: z.int().min(100).default(16000).describe('Largest machine, thousandths of a CPU.'),
  defaultCpuMillis: z.int().min(100).default(1000).describe('For pods that name neither quota nor shares.'),
  minMemory: bytes('256Mi').describe('Smallest machine: containerd, agent and kernel need about 180 MiB.'),
  maxMemory: bytes('64Gi').describe('Largest machine.'),
  defaultMemory: bytes('256Mi').describe('Memory for pods without a limit, before the overhead.'),
  overheadMemory: bytes('192Mi').describe('Added to what the pod asks for: kernel, containerd and agent, measured.'),
  disk: bytes('10Gi').describe('Scratch disk; sparse, so unused space costs nothing on local providers.'),
  minDisk: bytes('1Gi').describe(
    'Smallest scratch disk that a pod can ask for; an image takes some hundred MiB of it.',
  ),
  maxDisk: bytes('200Gi').describe('Largest scratch disk that a pod can ask for.'),
  architecture: z
    .enum(['amd64', 'arm64'])
    .default('amd64')
    .describe(
      "Architecture of the provider's guest image: machines are chosen for it, and pods that ask for another are refused.",
    ),
  bootTimeout: duration('120s').describe(
    'From launch to enrolled agent. Cloud machines take up to 60 s, an emulated one 10 s; twice the slowest.',
  ),
  connectInterval: duration('50ms').describe('Between two tries to reach a booting agent.'),
  goneAfter: duration('60s').describe('A channel that stays lost this long makes the pod NotReady.'),
  lease: duration('15m').describe(
    'Machines that are paid for power themselves off when their node is away for this long; renewed five times in it. ' +
      'Longer than any restart or upgrade of the daemon, short enough for a bill. 0s: never.',
  ),
  interruptionReserve: duration('10s').describe(
    'Of the notice with which a cloud takes a spot machine back (120 s on EC2, 30 s on Compute Engine), kept for logs and ' +
      'statuses; the rest is the grace of the containers. A sixth of the notice at most.',
  ),
  heartbeat: duration('5s').describe('Between heartbeats of an agent; three missed ones mean a lost channel.'),
  channelWait: duration('20s').describe(
    'A request for a machine whose channel is being made anew (after a restart of the daemon, or a cut) waits for it so long. ' +
      'A handshake under emulation takes seconds on a loaded host; kubelets allow two minutes.',
  ),
});

const image = z.strictObject({
  skopeo: z.string().default('skopeo').describe('Program that talks to registries.'),
  registriesConf: z.string().optional().describe('containers-registries.conf(5) file; default: the system one.'),
  policy: z
    .string()
    .optional()
    .describe('containers-policy.json(5) file. Default: the system one, or accept anything where there is none.'),
  certsDir: z.string().optional().describe('containers-certs.d(5) directory.'),
  pullTimeout: duration('30m').describe('One pull as a whole; big images over slow lines take that long.'),
  concurrentPulls: z.int().min(1).default(3).describe('Pulls at once; more only share the same line.'),
  pinned: z.array(z.string()).default([]).describe('References that the kubelet must not collect as garbage.'),
});

const vxlan = z.strictObject({
  port: z
    .int()
    .min(1)
    .max(65535)
    .default(4789)
    .describe('UDP port on nodes and machines; must be open between them, and between them only.'),
  address: z
    .union([z.ipv4(), z.ipv6()])
    .optional()
    .describe("This node's address towards its machines. Default: the one that the route to each machine names."),
});

const network = z.strictObject({
  confDir: z
    .string()
    .default('/etc/cni/net.d')
    .describe('First *.conflist (by name) is used, as with any runtime; `embedded`: a bridge of our own.'),
  binDirs: z.array(z.string()).default(['/opt/cni/bin', '/usr/lib/cni']).describe('Where CNI plugins are looked for.'),
  cacheDir: z.string().default('/var/lib/cni').describe("State of CNI plugins such as host-local's addresses."),
  timeout: duration('60s').describe('One CNI call; IPAM daemons of clouds take seconds.'),
  vxlan: vxlan.prefault({}).describe("Tunnels that carry pods' packets to machines that are not on this host."),
  hostNetwork: z
    .enum(['machine', 'reject'])
    .default('machine')
    .describe('What a hostNetwork pod gets: the network of its own machine, or a clear error.'),
});

const pki = z.strictObject({
  caLife: duration('8760h').describe("Life of the node's own CA; it signs nothing but agents and this daemon."),
  leafLife: duration('24h').describe('Life of an agent certificate; short, since nothing revokes it.'),
  renewBefore: duration('8h').describe('Renewal starts this long before the end: a third of the life.'),
  clockSkew: duration('5m').describe('Certificates are valid this long before they were made: guest clocks drift.'),
});

const isolation = z.strictObject({
  templateSharing: z
    .enum(['on', 'off'])
    .default('on')
    .describe(
      'on: machines are clones of one that was booted before any tenant came; unchanged memory is shared, read-only. ' +
        'off: every machine boots by itself, which takes seconds.',
    ),
  templateWait: duration('20s').describe(
    'How long a pod waits for a template that is being built before its machine boots by itself: beside the build a boot ' +
      'takes twice its time, and the template is there first. 0s: never.',
  ),
});

const reconciler = z.strictObject({
  retryInitial: duration('500ms').describe('First retry of a failed step.'),
  retryMax: duration('30s').describe('Longest pause between retries of one sandbox.'),
  launchConcurrency: z
    .int()
    .min(1)
    .default(4)
    .describe(
      'Machines starting at once, from the launch until the pod is ready: more would only slow each other down.',
    ),
  orphanGrace: duration('120s').describe(
    'A sandbox whose RunPodSandbox caller is gone is kept this long for the next try, then removed.',
  ),
  providerCheck: duration('60s').describe(
    'How long the verdict that the provider can make machines is good; the kubelet asks every few seconds.',
  ),
  sweep: duration('60s').describe('Between two comparisons of what exists with what is wanted.'),
  sweepFirst: duration('10s').describe('The same while the daemon is young: what a crash left behind costs money.'),
  sweepFirstRounds: z.int().min(0).default(20).describe('Comparisons that come so soon after each other.'),
  orphanAge: duration('30s').describe(
    'What belongs to nobody is removed when two looks in a row have found it and it is this old: lists of clouds lag behind.',
  ),
  keepEnded: z
    .int()
    .min(0)
    .default(200)
    .describe(
      'Removed sandboxes whose steps stay known for `infralet why`: so many that failed and so many that did not. ' +
        'One takes some 5 KB of the journal.',
    ),
  poolCheck: duration('5s').describe(
    'Between two looks at how large pools should be; what was taken out of one is replaced at once.',
  ),
});

const stats = z.strictObject({
  interval: duration('10s').describe(
    'Between two samples of what a pod uses; the kubelet looks every 10 s. One costs a pod some 10 ms of CPU time.',
  ),
  layerInterval: duration('60s').describe(
    'Least time between two walks through what containers have written: the walk costs a stat per file.',
  ),
  timeout: duration('5s').describe('For a machine that is asked for a sample since the last one is missing or old.'),
});

const events = z.strictObject({
  maxQueued: z
    .int()
    .min(16)
    .default(1000)
    .describe(
      'Events kept for one reader that is slow; then only the newest of each container is kept, and when those are ' +
        'more than this the stream ends, so that the reader lists anew.',
    ),
});

const policy = z.strictObject({
  hostPath: z
    .enum(['deny', 'copy', 'share'])
    .default('copy')
    .describe(
      'hostPath volumes: refused; copied into the machine when the container is created (not live); or shared with it as ' +
        'they are, so that both sides see what the other writes.',
    ),
  maxCopyBytes: bytes('1Gi').describe('Largest mount that is copied into a machine.'),
  maxCopyFiles: z.int().min(1).default(100_000).describe('Most files in one copied mount.'),
  annotations: annotationPolicy,
});

const volume = z.strictObject({
  debounce: duration('50ms').describe('After the first sign of a change: an update of the kubelet is several steps.'),
  poll: duration('1s').describe(
    'Between two looks at volumes that the kernel has no watch for (inotify limits): updates must arrive within 2 s.',
  ),
  recheck: duration('60s').describe('Between two looks at every volume, should a watch have told nothing.'),
  retry: duration('2s').describe('After a change that could not be brought into a machine.'),
});

const containerLog = z.strictObject({
  guestBuffer: bytes('64Mi').describe(
    "How much of a container's log may wait in its machine for the node; with more the container waits when it writes. " +
      'Enough for the restart of a daemon below a chatty container, little beside the scratch disk.',
  ),
  endWait: duration('10s').describe(
    'How long an exit is held back while nothing more of the log comes though its end is missing (a full disk of the node).',
  ),
  fullRetry: duration('1s').describe("Between two tries to write a log when the node's disk is full."),
});

const log = z.strictObject({
  level: z.enum(LOG_LEVELS).default('info').describe('Least important level that is written.'),
  components: z.record(z.string(), z.enum(LOG_LEVELS)).default({}).describe('Level per component.'),
  format: z
    .enum(['auto', 'json', 'pretty'])
    .default('auto')
    .describe('auto: pretty on a terminal, else one JSON object per line.'),
});

const metrics = z.strictObject({
  address: z
    .string()
    .default('127.0.0.1')
    .describe('Where figures for Prometheus are served; without a password, so loopback unless you say otherwise.'),
  port: z
    .int()
    .min(0)
    .max(65535)
    .optional()
    .describe(
      'TCP port of /metrics; 0: any free one, which the log names. Default: no metrics, since a port that nobody reads ' +
        'is only one more that is open.',
    ),
});

const tracing = z.strictObject({
  endpoint: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe(
      'Collector that takes traces by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces. Default: no traces.',
    ),
  headers: z
    .record(z.string(), z.string())
    .default({})
    .describe('Sent with every export, for collectors that want a key.'),
  sampleRatio: z
    .number()
    .min(0)
    .max(1)
    .default(0.1)
    .describe(
      'Share of the pods that are traced where the kubelet does not say; what it samples is always traced, what it ' +
        'does not never. A pod is some 15 spans.',
    ),
  timeout: duration('10s').describe('One export; what a collector does not take in time is dropped.'),
});

const settings = z.strictObject({
  cluster: z.string().min(1).max(63).default('default').describe('Name of the cluster; marks every machine.'),
  node: z.string().max(253).default('').describe('Name of this node; empty: the host name.'),
  stateDir: z.string().startsWith('/').default('/var/lib/infralet').describe('Journal, keys, images, machines.'),
  guestImageDir: z.string().default('').describe('Directory of the guest image; empty: <stateDir>/guest.'),
  provider: z.string().default('qemu').describe('Which provider makes the machines.'),
  providers: z.record(z.string(), z.unknown()).default({}).describe("Each provider's own section."),
  runtimeHandlers: z.array(z.string()).default(['', 'infralet']).describe('Runtime handlers that pods may name.'),
  profiles: profiles.describe(
    'Runtime handlers, beside `runtimeHandlers`, whose pods get machines of a certain kind, by their names.',
  ),
  server: server.prefault({}).describe('The CRI server: where the kubelet connects.'),
  streaming: streaming.prefault({}).describe('Exec, attach and port-forward.'),
  machine: machine.prefault({}).describe('Size and times of the machine behind each pod.'),
  image: image.prefault({}).describe("The node's image store."),
  network: network.prefault({}).describe('Pod networking by CNI on the node.'),
  pki: pki.prefault({}).describe("The node's own certificate authority for agents."),
  isolation: isolation.prefault({}).describe('What machines of different pods have in common.'),
  pools: pools.describe('Machines kept ready for pods to come, by a name for each kind. Default: none.'),
  guest: guest.prefault({}).describe('What a machine may do to its node; all of it is untrusted.'),
  reconciler: reconciler.prefault({}).describe('Retries, limits and sweeps of the control loop.'),
  stats: stats.prefault({}).describe('CPU, memory, disk and network figures of pods.'),
  events: events.prefault({}).describe('The stream of container events.'),
  policy: policy.prefault({}).describe('What pods may ask for.'),
  volume: volume.prefault({}).describe('Volumes that follow their objects: ConfigMaps, Secrets, tokens.'),
  metrics: metrics.prefault({}).describe('Figures for Prometheus.'),
  tracing: tracing.prefault({}).describe('OpenTelemetry traces of pods.'),
  containerLog: containerLog.prefault({}).describe("Containers' logs on their way to the kubelet's files."),
  log: log.prefault({}).describe('What the daemon writes to standard error.'),
});

export const configSchema = settings.transform((config) => ({
  ...config,
  // A profile is a handler that pods may name.
  runtimeHandlers: [...new Set([...config.runtimeHandlers, ...Object.keys(config.profiles)])],
}));

/** The compiled configuration: milliseconds and bytes, nothing optional that the core needs. */
export type Config = Readonly<z.output<typeof configSchema>>;
