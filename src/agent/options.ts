/** The agent's options: the fixed facts of the guest image as defaults, all movable so that it runs on any host. */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { InfraletError } from '../base/errors.ts';

/** Every bound of the agent, with its reason. Bytes and milliseconds. */
export const LIMITS = {
  /** Connections at once: the daemon needs one or two; the rest is room for a reconnect storm, not for strangers. */
  connections: 16,
  /** TLS handshake; an emulated machine needs well under a second. */
  handshakeMs: 10_000,
  /** Refusals written to the log per second; a scanner must not fill the console. */
  refusalsPerSecond: 10,
  /** Longest log line, characters. */
  logLine: 2000,
  /** User data; the daemon promises 4 KiB. */
  userData: 16 * 1024,
  /** Waiting for a cloud's user data: its network takes seconds; a machine that has none by then belongs to nobody. */
  metadataMs: 300_000,
  /** One request to the metadata service, which is on the machine's own host. */
  metadataRequestMs: 2000,
  /** First and longest pause between two tries. */
  metadataPauseMs: 50,
  /** Between two looks for the notice that a spot machine ends, as EC2 advises; and one look that waits for the notice. */
  interruptionPollMs: 5000,
  interruptionWaitMs: 10_000,
  metadataPauseMaxMs: 500,
  /** Relayed calls in progress: the kubelet of a pod never has a tenth of this. */
  relayedCalls: 256,
  /** Tunnels open at once: exec, attach, port-forward and image connections. */
  tunnels: 512,
  /** Largest tunnel frame taken from the daemon; it sends 64 KiB. */
  tunnelFrame: 256 * 1024,
  /** Connecting to a local server inside the machine. */
  connectMs: 5000,
  /** Connections of the guest that wait for their tunnel, and for how long. */
  incomingPending: 64,
  incomingWaitMs: 30_000,
  /** Services that the daemon listens to: images, and a share for each directory of the node that the pod mounts. */
  incomingServices: 128,
  /** Events kept for a watcher that does not read; beyond it gets a Resync instead. */
  watchBacklog: 1000,
  heartbeatMinMs: 100,
  heartbeatMaxMs: 60_000,
  /** Between samples: a sample costs an emulated machine some 10 ms. */
  sampleMinMs: 500,
  sampleMaxMs: 3_600_000,
  /** Containers and interfaces in one sample; a pod has a few. */
  sampledContainers: 256,
  sampledInterfaces: 32,
  /** Files of one container that are counted, and how many without a pause. */
  layerEntries: 1_000_000,
  layerSlice: 64,
  /** First pause and longest pause between subscriptions to containerd's events. */
  resubscribeMs: 100,
  resubscribeMaxMs: 2000,
  /** Entries and bytes of one PutFiles; the daemon's own policy is far lower. */
  treeEntries: 1_000_000,
  treeBytes: 64 * 1024 ** 3,
  pathBytes: 4096,
  pathDepth: 128,
  /** Looking again for a file that does not exist yet or whose watch told nothing. */
  readTickMs: 1000,
  /** Smallest bound of a log, and the number of files that it is kept in. */
  logMinBytes: 64 * 1024,
  logFiles: 16,
  /** After a line of a log came: more may follow at once, and one message carries them all. */
  logGatherMs: 20,
  /** So much at once says that more will follow: then it is waited for longer. */
  logChatty: 16 * 1024,
  logGatherChattyMs: 100,
  /** For containerd to answer: in Status, which must not wait for a containerd that starts, and between two tries. */
  statusProbeMs: 100,
  probeMs: 2000,
  /** Clock differences below this are left alone: stepping costs more than it mends. */
  clockToleranceMs: 20,
  /** Any program that the agent runs: date, sync, poweroff. */
  commandMs: 10_000,
  /** Mounting a share: the server answers over the tunnel, and the modules are loaded first. */
  mountMs: 60_000,
} as const;

export interface AgentOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** Volatile state: key and certificate; survives the agent, not the machine. */
  readonly stateDir: string;
  readonly userDataFile: string;
  /** Base URL of the cloud's metadata service, asked where the file above does not exist; empty: nobody is asked. */
  readonly metadata: string;
  readonly metadataMs: number;
  readonly containerdSocket: string;
  readonly streaming: { readonly host: string; readonly port: number };
  readonly images: { readonly host: string; readonly port: number };
  readonly roots: Readonly<Record<RootName, string>>;
  /** Lines "name milliseconds-since-kernel-start", written by init. */
  readonly phasesFile: string;
  readonly imageDigestFile: string;
  readonly hostnameFile: string;
  readonly entropyFile: string;
  /** One directory per network interface, as in sysfs. */
  readonly nicsDir: string;
  /** Sizes of huge pages, as in sysfs. */
  readonly hugePagesDir: string;
  /** containerd's files of its pod sandboxes, and the root of the groups that their processes are in. */
  readonly sandboxesDir: string;
  readonly cgroupDir: string;
  /** containerd's bundles of the pod's containers. */
  readonly bundlesDir: string;
  readonly procDir: string;
  readonly mountInfoFile: string;
  /** Takes the machine's id, a new one for every machine. */
  readonly machineIdFile: string;
  /** Reads a log from containerd and keeps it (agent/logs.ts). */
  readonly keepLogCommand: string;
  /** Sets clock and randomness (agent/refresh.ts); empty: `dateCommand` and `entropyFile` do what they can. */
  readonly refreshCommand: string;
  /** Gives the pod sandbox of a template to a pod (agent/pod-sandbox.ts); empty: a shell does. */
  readonly podSetupCommand: string;
  /** Programs, found in PATH unless absolute. */
  readonly dateCommand: string;
  /** iproute2's `ip`: busybox's makes no tunnels. */
  readonly ipCommand: string;
  readonly nftCommand: string;
  readonly mountCommand: string;
  readonly powerOffCommand: string;
}

export type RootName = 'ROOT_VOLUMES' | 'ROOT_LOGS' | 'ROOT_CNI' | 'ROOT_SCRATCH' | 'ROOT_SECCOMP';

/** Parses argv; `--root DIR` moves every path below DIR, for a developer's host. */
export function parseOptions(argv: readonly string[]): AgentOptions {
  const { values } = parseArgs({
    args: [...argv],
    strict: true,
    options: {
      listen: { type: 'string', default: '0.0.0.0:7443' },
      root: { type: 'string', default: '/' },
      'user-data': { type: 'string' },
      metadata: { type: 'string', default: '' },
      'metadata-wait': { type: 'string' },
      containerd: { type: 'string' },
      streaming: { type: 'string', default: '127.0.0.1:10010' },
      images: { type: 'string', default: '127.0.0.1:5000' },
      date: { type: 'string' },
      'keep-log': { type: 'string' },
      'power-off': { type: 'string' },
    },
  });
  // An agent below another root is on somebody's host: it must neither set its clock nor switch it off.
  const moved = values.root !== '/';
  const at = (path: string): string => join(values.root, path);
  return {
    listen: endpoint(values.listen),
    stateDir: at('/run/infralet'),
    userDataFile: values['user-data'] ?? at('/sys/firmware/qemu_fw_cfg/by_name/opt/infralet/user-data/raw'),
    metadata: values.metadata,
    metadataMs: values['metadata-wait'] === undefined ? LIMITS.metadataMs : Number(values['metadata-wait']),
    containerdSocket: values.containerd ?? at('/run/containerd/containerd.sock'),
    streaming: endpoint(values.streaming),
    images: endpoint(values.images),
    roots: {
      ROOT_VOLUMES: at('/scratch/volumes'),
      ROOT_LOGS: at('/scratch/logs'),
      ROOT_SCRATCH: at('/scratch/pod'),
      ROOT_CNI: at('/run/cni/net.d'),
      ROOT_SECCOMP: at('/run/infralet/seccomp'),
    },
    phasesFile: at('/run/infralet/phases'),
    imageDigestFile: at('/usr/lib/infralet/image-digest'),
    hostnameFile: at('/proc/sys/kernel/hostname'),
    entropyFile: at('/dev/urandom'),
    nicsDir: at('/sys/class/net'),
    hugePagesDir: at('/sys/kernel/mm/hugepages'),
    sandboxesDir: at('/scratch/containerd/io.containerd.grpc.v1.cri/sandboxes'),
    cgroupDir: at('/sys/fs/cgroup'),
    bundlesDir: at('/run/containerd/io.containerd.runtime.v2.task/k8s.io'),
    procDir: at('/proc'),
    mountInfoFile: at('/proc/self/mountinfo'),
    machineIdFile: at('/run/machine-id'),
    keepLogCommand: values['keep-log'] ?? '/usr/lib/infralet/keep-log',
    refreshCommand: moved || values.date !== undefined ? '' : '/usr/lib/infralet/refresh',
    ipCommand: moved ? 'ip' : '/usr/lib/infralet/ip',
    nftCommand: 'nft',
    podSetupCommand: moved ? '' : '/usr/lib/infralet/set-up-pod',
    dateCommand: values.date ?? (moved ? 'true' : 'date'),
    mountCommand: moved ? 'true' : 'mount',
    powerOffCommand: values['power-off'] ?? (moved ? 'true' : 'poweroff'),
  };
}

function endpoint(text: string): { host: string; port: number } {
  const [, host, digits] = /^(.+):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (host === undefined || port > 65535) {
    throw new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(text)} is not HOST:PORT`);
  }
  return { host: host.replace(/^\[|\]$/g, ''), port };
}
