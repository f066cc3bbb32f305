/** What daemon and agent must agree on beside agent.proto: user data, names in certificates, the enrolment proof. */
import { createHmac } from 'node:crypto';

export const USER_DATA_VERSION = 1;

/** The machine's user data. The token is its only secret, and it is good for one enrolment. */
export interface UserData {
  readonly version: typeof USER_DATA_VERSION;
  readonly cluster: string;
  /** Empty when one launch call made several machines: its certificate tells each of them whose it is. */
  readonly sandboxId: string;
  /** 32 random bytes, base64url; for a machine of a shared launch what `machineToken` makes of the seed. */
  readonly token: string;
  /** The node's CA, PEM. Only clients with a certificate of this CA get through the agent's TLS. */
  readonly ca: string;
  /**
   * When the user data was made, milliseconds since the epoch. A machine without a battery-backed clock boots in 1970,
   * where no certificate is valid yet; the agent moves a clock that is behind up to this.
   */
  readonly clockMs: number;
  /** 32 random bytes of this machine alone, base64url: clones of one template begin with equal random generators. */
  readonly entropy: string;
  /** Largest gRPC message in bytes, both ways. */
  readonly maxMessage: number;
  /**
   * The machine powers itself off when it has not heard of its node for this long, milliseconds; absent: never. Part of
   * the user data, because a node may die before its machine has booted.
   */
  readonly leaseMs?: number;
}

/**
 * Makes one machine's user data into that of many: clouds give all machines of one call the same. The seed takes the place of
 * the token, and each machine's own token follows from it and the id that the cloud's metadata service tells the machine.
 */
export function shareUserData(text: string, seed: string): string {
  const { token: _token, sandboxId: _sandboxId, ...rest } = JSON.parse(text) as Record<string, unknown>;
  return JSON.stringify({ ...rest, seed });
}

/** The one-time token of one machine of a shared launch. */
export function machineToken(seed: string, instanceId: string): string {
  return createHmac('sha256', seed).update('infralet-machine-v1').update(instanceId).digest('base64url');
}

/** Hardware address of the pod NIC as every provider makes it; the pod's own is set before the NIC is used. */
export const POD_NIC = '52:54:00:00:00:02';

/** What a machine without a pod rehearses with: addresses that nobody has, and the NIC's own hardware address. */
export const NOBODYS_NETWORK = {
  hostname: 'template',
  resolvConf: 'nameserver 192.0.2.1\n',
  mac: POD_NIC,
  mtu: 1500,
  addresses: [{ address: '192.0.2.2/24' }],
  routes: [{ destination: '0.0.0.0/0', gateway: '192.0.2.1' }],
};

/** Namespace of the pod sandbox that a template is frozen with, in the guest's containerd. */
export const TEMPLATE_NAMESPACE = 'infralet.template';
/** The CNI configuration with which it was made, below ROOT_CNI. */
export const TEMPLATE_CONFLIST = '10-template.conflist';

/** Directory in the guest where containerd writes container logs (the agent's ROOT_LOGS). */
export const GUEST_LOG_DIRECTORY = '/scratch/logs';
/** In a log's directory: what containerd writes to. */
export const GUEST_LOG_FIFO = 'fifo';
/** The guest's containerd uses the cgroupfs driver; every pod of the machine lives here. */
export const GUEST_CGROUP_PARENT = '/pod';

/** Room for the protobuf frame around a relayed message of the largest size. */
export const MESSAGE_OVERHEAD = 64 * 1024;
/** containerd's ExecSync answers with up to 16 MiB of each of two outputs; the node cuts them to what the kubelet takes. */
const EXEC_OUTPUT_BYTES = 2 * 16 * 1024 * 1024;

/** Largest relayed answer, bytes. */
export function largestReply(maxMessage: number): number {
  return Math.max(maxMessage, EXEC_OUTPUT_BYTES) + MESSAGE_OVERHEAD;
}

/** Largest piece of a byte stream (tunnels, files) in one message. */
export const CHUNK_BYTES = 64 * 1024;

/** Most of a log in one message: a message costs an emulated machine as much as some 100 KiB of what is in it. */
export const LOG_CHUNK_BYTES = 256 * 1024;

/** Name of the agent in one machine, in its certificate's subjectAltName. */
export function agentUri(cluster: string, sandboxId: string, instanceId: string): string {
  return `infralet://${part(cluster)}/sandbox/${part(sandboxId)}/instance/${part(instanceId)}`;
}

/** What the URIs of all instances of a sandbox begin with. */
export function sandboxUriPrefix(cluster: string, sandboxId: string): string {
  return `infralet://${part(cluster)}/sandbox/${part(sandboxId)}/instance/`;
}

/** What the URIs of all agents of a cluster begin with. */
export function clusterUriPrefix(cluster: string): string {
  return `infralet://${part(cluster)}/sandbox/`;
}

/** Name of the daemon; an agent's own certificate does not open another agent. */
export function daemonUri(cluster: string): string {
  return `infralet://${part(cluster)}/daemon`;
}

/** Proves knowledge of the token for one nonce and one key. */
export function enrolmentMac(token: string, nonce: Uint8Array, csr: Uint8Array): Buffer {
  return createHmac('sha256', token).update('infralet-enrol-v1').update(nonce).update(csr).digest();
}

/** True when the certificate's subjectAltName, as Node prints it, is exactly this one URI. */
export function namesOnly(subjectAltName: string | undefined, uri: string): boolean {
  return subjectAltName === `URI:${uri}`;
}

/** encodeURIComponent leaves no comma, quote or slash, so that Node prints the name unquoted. */
function part(text: string): string {
  return encodeURIComponent(text);
}
