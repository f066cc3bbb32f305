/** The record with which a sandbox begins, be it a pod's or a machine's that waits for one. */
import { createHash } from 'node:crypto';
import { newSandboxId, type SandboxId } from '../base/ids.ts';
import type { MachineShape } from '../cloud/contract.ts';
import type { Placement } from '../cloud/offers.ts';
import type { PodSandboxMetadata__Output } from '../gen/runtime/v1/PodSandboxMetadata.ts';
import type { SandboxRecord } from './record.ts';

/** What a record says about its pod; a machine in a pool has none of it. */
export type PodFacts = Pick<
  SandboxRecord,
  'podUid' | 'podName' | 'podNamespace' | 'attempt' | 'runtimeHandler' | 'createdAt' | 'timeline' | 'traceparent'
>;

export function podFacts(
  metadata: PodSandboxMetadata__Output,
  runtimeHandler: string,
  now: number,
  traceparent?: string,
): PodFacts {
  const { uid: podUid, name: podName, namespace: podNamespace, attempt } = metadata;
  const pod = { podUid, podName, podNamespace, attempt, runtimeHandler, traceparent };
  return { ...pod, createdAt: now, timeline: { asked: now } };
}

export function noPod(now: number): PodFacts {
  return podFacts({ uid: '', name: '', namespace: '', attempt: 0 }, '', now);
}

export function newRecord(
  facts: PodFacts,
  machine: {
    readonly cluster: string;
    readonly pool: string;
    readonly enrolToken: string;
    readonly shape: MachineShape;
    readonly placement: Placement;
  },
): SandboxRecord {
  const { cluster, pool, enrolToken, shape, placement } = machine;
  const id = newSandboxId();
  return {
    id,
    pool,
    ...facts,
    state: 'planned',
    wanted: 'ready',
    listed: false,
    reason: '',
    lastError: '',
    launchToken: launchToken(cluster, id),
    enrolToken,
    shape,
    placement,
    resize: false,
    machine: 'none',
    enrolled: false,
    rehearsed: machine.pool === '',
    power: 'on',
    image: '',
    network: 'none',
    joined: false,
    guestSandboxId: '',
    guestStopped: false,
  };
}

/** Deterministic per sandbox, so that a launch repeated after a crash finds its machine. */
function launchToken(cluster: string, id: SandboxId): string {
  return createHash('sha256').update(`${cluster}|${id}|1`).digest('hex').slice(0, 32);
}
