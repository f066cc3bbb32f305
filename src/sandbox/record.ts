/**
 * What the journal holds of a pod sandbox. One record is one pod attempt and its machine.
 *
 *   planned ──▶ requested ──▶ running ──▶ connected ──▶ ready ──▶ stopping ──▶ stopped
 *      └────────────┴─────────────┴────────────┴───────────┴──▶ failed (with a reason)
 *
 * A machine that waits in a pool has a record too: it goes as far as `connected` and stays there, without a pod, until it is
 * claimed (one durable write makes it the pod's) or taken down. No list shows it before.
 *
 * `stopped` and `failed` sandboxes own no machine once their teardown is through; removal deletes the record.
 */
import { z } from 'zod';
import { type InstanceId, parseInstanceId, parseSandboxId, type SandboxId } from '../base/ids.ts';
import { ARCHITECTURES, MARKETS, type Placement } from '../cloud/offers.ts';
import type { PodNetworkResult } from '../network/pod-network.ts';
import { podResourcesSchema } from './resources.ts';

export const SANDBOX_STATES = [
  'planned',
  'requested',
  'running',
  'connected',
  'ready',
  'stopping',
  'stopped',
  'failed',
] as const;
export type SandboxState = (typeof SANDBOX_STATES)[number];

const networkResult = z.object({
  netns: z.string(),
  mac: z.string(),
  mtu: z.number(),
  addresses: z.array(z.object({ address: z.string(), gateway: z.string().optional() })),
  routes: z.array(z.object({ destination: z.string(), gateway: z.string().optional() })),
});

const vxlanLink = z.object({
  vni: z.number(),
  local: z.string(),
  remote: z.string(),
  port: z.number(),
  mtu: z.number(),
});

const directLink = z.object({ machine: z.string(), pod: z.string() });

const placement = z.object({
  architecture: z.enum(ARCHITECTURES).optional(),
  gpu: z.object({ count: z.number(), model: z.string().optional() }).optional(),
  types: z.array(z.string()).optional(),
  zones: z.array(z.string()).optional(),
  market: z.enum([...MARKETS, 'spot-preferred']).optional(),
});

/** Facts about the machine's life, in milliseconds since the epoch, by phase. */
const timeline = z.record(z.string(), z.number());

const schema = z.object({
  id: z.string().transform(parseSandboxId),
  /** The pool in which its machine waits for a pod; empty as soon as there is one. Records of old have none. */
  pool: z.string().default(''),
  podUid: z.string(),
  podName: z.string(),
  podNamespace: z.string(),
  attempt: z.number(),
  runtimeHandler: z.string(),
  createdAt: z.number(),
  state: z.enum(SANDBOX_STATES),
  /** What the kubelet asked for last. */
  wanted: z.enum(['ready', 'stopped', 'removed']),
  /** True once it was ready: from then on it is listed until it is removed. */
  listed: z.boolean(),
  reason: z.string(),
  lastError: z.string(),
  /** Idempotency token of the launch. */
  launchToken: z.string(),
  /** Enrolment token of the machine; empty once it was used. */
  enrolToken: z.string(),
  shape: z.object({ cpuMillis: z.number(), memoryBytes: z.number(), diskBytes: z.number() }),
  /** What its machine must be beside its size; a launch that is repeated after a crash asks for the same. */
  placement: placement.default({}),
  /** The machine was made for another size than the pod's, and has not been told yet. */
  resize: z.boolean().default(false),
  /** Limits inside the machine as UpdatePodSandboxResources has left them; undefined: the machine's size alone. */
  resources: podResourcesSchema.optional(),
  instanceId: z.string().transform(parseInstanceId).optional(),
  /** How the machine began, once it is there. */
  start: z.enum(['clone', 'boot']).optional(),
  /** What was bought for it, where machines are bought. */
  purchase: z.object({ type: z.string(), zone: z.string(), market: z.string(), pricePerHour: z.number() }).optional(),
  /** The cloud takes its machine back, and why in one sentence: it is not ready any more. */
  interruption: z.string().optional(),
  /** W3C trace context of the call that asked for the pod; absent: it is not traced. */
  traceparent: z.string().optional(),
  /** End of the console of a machine that has failed its pod, as far as it could be had. */
  console: z.string().optional(),
  machine: z.enum(['none', 'launching', 'launched', 'gone']),
  enrolled: z.boolean(),
  /** Only a machine in a pool is ever suspended, and its pod's sandbox until it is resumed. */
  power: z.enum(['on', 'suspending', 'suspended']).default('on'),
  /** Digest of the guest image that it runs, by its own account; empty until it is connected. */
  image: z.string().max(128).default(''),
  /** A machine of a pool has warmed up for its pod; others need not. */
  rehearsed: z.boolean().default(false),
  network: z.enum(['none', 'adding', 'added', 'gone']),
  networkResult: networkResult.optional(),
  joined: z.boolean(),
  /** Of a machine elsewhere, once it is joined: the tunnel that it must make its end of, or the address that is its pod's. */
  link: z.union([vxlanLink, directLink]).optional(),
  guestSandboxId: z.string(),
  guestStopped: z.boolean(),
  timeline,
});

export interface SandboxRecord
  extends Readonly<Omit<z.output<typeof schema>, 'networkResult' | 'id' | 'instanceId' | 'placement'>> {
  readonly id: SandboxId;
  readonly placement: Placement;
  readonly instanceId?: InstanceId | undefined;
  readonly networkResult?: PodNetworkResult | undefined;
}

/** Reads a journal row; throws when it was damaged. */
export function parseSandboxRecord(value: unknown): SandboxRecord {
  const parsed = schema.parse(value);
  return { ...parsed, networkResult: parsed.networkResult && completeNetwork(parsed.networkResult) };
}

function completeNetwork(parsed: z.output<typeof networkResult>): PodNetworkResult {
  return {
    ...parsed,
    addresses: parsed.addresses.map((entry) => ({ address: entry.address, gateway: entry.gateway })),
    routes: parsed.routes.map((entry) => ({ destination: entry.destination, gateway: entry.gateway })),
  };
}

/** Whether the pod's address is the cloud's own, so that the node has no part in its network. */
export function hasDirectLink(record: SandboxRecord | undefined): boolean {
  return record?.link !== undefined && 'pod' in record.link;
}

/** Pod IPs, the main one first. */
export function podIps(record: SandboxRecord): readonly string[] {
  return (record.networkResult?.addresses ?? []).map(({ address }) => address.replace(/\/.*$/, ''));
}

/** As the kubelet is told: no longer from the moment that it asked for the end, or that the cloud announced it. */
export function isReady(record: SandboxRecord): boolean {
  return record.state === 'ready' && record.wanted === 'ready' && record.interruption === undefined;
}
