/** A container in a few words, for people. */
import type { ContainerSummary } from '../sandbox/describe.ts';
import type { ContainerState } from './service.ts';
import type { ContainerEntry } from './store.ts';

const STATES: Readonly<Record<ContainerState, ContainerSummary['state']>> = {
  CONTAINER_CREATED: 'created',
  CONTAINER_RUNNING: 'running',
  CONTAINER_EXITED: 'exited',
  CONTAINER_UNKNOWN: 'unknown',
};

export function containerSummary({ record, config }: ContainerEntry): ContainerSummary {
  return {
    id: record.id,
    name: config.metadata?.name ?? '',
    attempt: config.metadata?.attempt ?? 0,
    image: config.image?.userSpecifiedImage || config.image?.image || record.imageRef,
    state: state(record),
    createdAt: Number(BigInt(record.createdAt) / 1_000_000n),
    exitCode: record.exitCode,
    reason: record.reason,
  };
}

function state(record: ContainerEntry['record']): ContainerSummary['state'] {
  if (record.removing) return 'removing';
  return record.guestId === '' ? 'creating' : STATES[record.state];
}
