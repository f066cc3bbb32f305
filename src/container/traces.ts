/** Which trace a sandbox, or a CRI request about one, belongs to. */
import { z } from 'zod';
import type { SandboxStore } from '../sandbox/store.ts';
import { isSampled, traceIdOf } from '../telemetry/trace.ts';
import type { ContainerStore } from './store.ts';

/** The fields by which CRI requests name a sandbox or a container. */
const request = z.object({
  podSandboxId: z.string().catch(''),
  containerId: z.string().catch(''),
  sandboxConfig: z
    .object({ metadata: z.object({ uid: z.string(), attempt: z.number() }).nullable() })
    .nullable()
    .catch(null),
});

interface SandboxTraces {
  /** Trace id of a sandbox whose trace is recorded. */
  readonly idOf: (sandboxId: string) => string | undefined;
  /** `traceparent` of the sandbox that a request is about. */
  readonly ofRequest: (request: unknown) => string | undefined;
}

export function sandboxTraces(sandboxes: SandboxStore, containers: ContainerStore): SandboxTraces {
  const traceOf = (id: string): string | undefined => sandboxes.find(id)?.record.traceparent;
  return {
    idOf: (id) => {
      const traceparent = traceOf(id);
      return isSampled(traceparent) ? traceIdOf(traceparent) : undefined;
    },
    ofRequest: (message) => {
      const { data } = request.safeParse(message);
      if (!data) return undefined;
      if (data.podSandboxId !== '') return traceOf(data.podSandboxId);
      if (data.containerId !== '') return traceOf(containers.find(data.containerId)?.record.sandboxId ?? '');
      const metadata = data.sandboxConfig?.metadata;
      return metadata ? sandboxes.byAttempt(metadata.uid, metadata.attempt)?.record.traceparent : undefined;
    },
  };
}
