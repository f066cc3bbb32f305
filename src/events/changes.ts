/** Which events a change of a record is. Pure. */
import type { ContainerRecord } from '../container/record.ts';
import { isReady, type SandboxRecord } from '../sandbox/record.ts';

export type EventKind = 'created' | 'started' | 'stopped' | 'deleted';

/** A container is there once the machine has it, and gone from the first moment of its removal; as in lists. */
export function containerEvents(
  before: ContainerRecord | undefined,
  after: ContainerRecord | undefined,
): readonly EventKind[] {
  const was = before && shown(before) ? before : undefined;
  const is = after && shown(after) ? after : undefined;
  if (!is) return was ? ['deleted'] : [];
  const stage = (record: ContainerRecord | undefined): number => (record ? STAGES[record.state] : 0);
  // A brief process may have come and gone between two looks: nothing of its life is left out.
  const passed = (['created', 'started', 'stopped'] as const).slice(stage(was), stage(is));
  return passed.filter((kind) => kind !== 'started' || is.startedAt !== '0');
}

/** How many events of its life lie behind a container; one in an unknown state was running when it was last seen. */
const STAGES: Readonly<Record<ContainerRecord['state'], number>> = {
  CONTAINER_CREATED: 1,
  CONTAINER_RUNNING: 2,
  CONTAINER_UNKNOWN: 2,
  CONTAINER_EXITED: 3,
};

function shown({ guestId, removing }: ContainerRecord): boolean {
  return guestId !== '' && !removing;
}

/** A sandbox is there once it was ready. */
export function sandboxEvents(
  before: SandboxRecord | undefined,
  after: SandboxRecord | undefined,
): readonly EventKind[] {
  if (!after) return before?.listed ? ['deleted'] : [];
  if (!after.listed) return [];
  const began = before?.listed ? [] : (['created', 'started'] as const);
  const wasReady = before?.listed ? isReady(before) : true;
  return wasReady && !isReady(after) ? [...began, 'stopped'] : began;
}
