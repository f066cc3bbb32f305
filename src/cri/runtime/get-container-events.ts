/** GetContainerEvents: every change from now on, each with the whole pod; see src/events. */

import type { EventKind } from '../../events/changes.ts';
import type { ContainerEventType } from '../../gen/runtime/v1/ContainerEventType.ts';
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { sandboxStatus } from '../convert/sandbox.ts';
import type { CriDeps } from '../deps.ts';

const TYPES: Readonly<Record<EventKind, ContainerEventType>> = {
  created: 'CONTAINER_CREATED_EVENT',
  started: 'CONTAINER_STARTED_EVENT',
  stopped: 'CONTAINER_STOPPED_EVENT',
  deleted: 'CONTAINER_DELETED_EVENT',
};

export async function* getContainerEvents(
  deps: CriDeps,
  _request: CriRequestFull<'GetContainerEvents'>,
  context: CallContext,
): AsyncGenerator<CriResponse<'GetContainerEvents'>> {
  using events = deps.events.subscribe();
  for (;;) {
    const event = await events.next(context.signal);
    yield {
      containerId: event.id,
      containerEventType: TYPES[event.kind],
      createdAt: event.at,
      podSandboxStatus: sandboxStatus(event.sandbox),
      containersStatuses: [...event.containers],
    };
  }
}
