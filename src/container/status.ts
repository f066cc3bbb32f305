/** From a container's record to the CRI's status, and from the guest's status to the record. Pure. */
import type { ContainerConfig__Output } from '../gen/runtime/v1/ContainerConfig.ts';
import type { ContainerStatus__Output } from '../gen/runtime/v1/ContainerStatus.ts';
import type { ContainerRecord } from './record.ts';
import { CONTAINER_STATES } from './service.ts';

/** Exit code and reason of a container whose machine went away with it; 137 is SIGKILL's. */
const LOST_EXIT_CODE = 137;
const LOST_REASON = 'MachineLost';
/** Of one that ended after the cloud had announced its machine's end. */
const INTERRUPTED_REASON = 'SpotInterruption';

/** Longest text taken over from a guest; kubelets cut at 4096 bytes themselves. */
const MAX_TEXT = 4096;

/** More groups than any process can have. */
const MAX_GROUPS = 65_536;

/** What is shown of a guest's status without being in the record. */
export type GuestFacts = Pick<ContainerStatus__Output, 'resources' | 'user' | 'stopSignal'>;

/** Only what is shown is kept: a guest's status may be as large as a message. */
export function factsFromGuest({ resources, user, stopSignal }: ContainerStatus__Output): GuestFacts {
  const groups = user?.linux?.supplementalGroups ?? [];
  const linux = resources?.linux ?? null;
  return {
    user: groups.length > MAX_GROUPS ? null : user,
    // Unified cgroup values are texts of the guest's choice; the request's own are shown instead.
    resources: linux && { linux: { ...linux, unified: {}, hugepageLimits: [] }, windows: null },
    stopSignal,
  };
}

type Change = Partial<Omit<ContainerRecord, 'id' | 'sandboxId'>>;

/**
 * What a status of the guest changes in the record. Numbers and texts are checked: the guest is not trusted.
 * @param interruption why the machine is about to end, if it is: then that is why containers do.
 */
export function changeFromGuest(status: ContainerStatus__Output, interruption?: string): Change {
  const startedAt = nanosText(status.startedAt);
  const finishedAt = nanosText(status.finishedAt);
  // containerd notes the start when its call returns: a brief process may have ended before, by its own account.
  const turned = finishedAt !== '0' && BigInt(finishedAt) < BigInt(startedAt);
  return {
    // An enum of a later or a hostile containerd may hold any number, which the journal could not read back.
    state: CONTAINER_STATES.includes(status.state) ? status.state : 'CONTAINER_UNKNOWN',
    startedAt: turned ? finishedAt : startedAt,
    finishedAt,
    exitCode: status.exitCode,
    ...(interruption === undefined || status.state !== 'CONTAINER_EXITED'
      ? { reason: status.reason.slice(0, MAX_TEXT), message: status.message.slice(0, MAX_TEXT) }
      : { reason: INTERRUPTED_REASON, message: withWords(interruption, status.message) }),
  };
}

function withWords(interruption: string, message: string): string {
  return (message === '' ? interruption : `${interruption}; ${message}`).slice(0, MAX_TEXT);
}

export function changeWhenLost(
  record: ContainerRecord,
  reason: string,
  nowNanos: string,
  interruption?: string,
): Change {
  return {
    state: 'CONTAINER_EXITED',
    finishedAt: nowNanos,
    startedAt: record.startedAt,
    exitCode: LOST_EXIT_CODE,
    reason: interruption === undefined ? LOST_REASON : INTERRUPTED_REASON,
    message: (interruption ?? reason).slice(0, MAX_TEXT),
  };
}

export function criStatus(
  record: ContainerRecord,
  config: ContainerConfig__Output,
  imageName: string,
  logPath: string,
  guest: GuestFacts | undefined,
): ContainerStatus__Output {
  return {
    id: record.id,
    metadata: config.metadata,
    state: record.state,
    createdAt: record.createdAt,
    startedAt: record.startedAt,
    finishedAt: record.finishedAt,
    exitCode: record.exitCode,
    image: {
      image: imageName,
      annotations: config.image?.annotations ?? {},
      userSpecifiedImage: config.image?.userSpecifiedImage ?? '',
      runtimeHandler: config.image?.runtimeHandler ?? '',
      imageRef: config.image?.imageRef ?? '',
    },
    imageRef: record.imageRef,
    imageId: record.imageId,
    reason: record.reason,
    message: record.message,
    labels: config.labels,
    annotations: config.annotations,
    mounts: config.mounts,
    logPath,
    resources: guest?.resources ?? { linux: record.resources ?? config.linux?.resources ?? null, windows: null },
    user:
      guest?.user ??
      (record.user && { linux: { ...record.user, supplementalGroups: [...record.user.supplementalGroups] } }),
    stopSignal:
      config.stopSignal === 'SIGNAL_RUNTIME_DEFAULT'
        ? (guest?.stopSignal ?? 'SIGNAL_RUNTIME_DEFAULT')
        : config.stopSignal,
  };
}

function nanosText(text: string): string {
  return /^\d{1,19}$/.test(text) ? text : '0';
}
