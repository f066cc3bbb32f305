/** Figures and spans of CRI calls. */
import { performance } from 'node:perf_hooks';
import type { CallObservation, ObserveCall } from '../rpc/adapter.ts';
import { type Meters, SECONDS } from '../telemetry/meters.ts';
import { isSampled, type Span, type Tracer, traceIdOf } from '../telemetry/trace.ts';

export interface ObserveOptions {
  readonly meters: Meters | undefined;
  readonly tracer: Tracer | undefined;
  /** `traceparent` of the sandbox that a request is about; undefined: none, or it is not traced. */
  readonly traceOf: (request: unknown) => string | undefined;
}

/**
 * Calls that change something, and so are part of a sandbox's story. The others are traced only when their caller does:
 * a kubelet that lists every second would bury everything else.
 */
const CHANGING: ReadonlySet<string> = new Set([
  'RunPodSandbox',
  'StopPodSandbox',
  'RemovePodSandbox',
  'CreateContainer',
  'StartContainer',
  'StopContainer',
  'RemoveContainer',
  'UpdateContainerResources',
  'UpdatePodSandboxResources',
  'ExecSync',
  'PullImage',
]);

/** Undefined when nobody wants to know. */
export function observeCalls({ meters, tracer, traceOf }: ObserveOptions): ObserveCall | undefined {
  if (!meters && !tracer) return undefined;
  const duration = meters?.histogram(
    'infralet_cri_call_seconds',
    'CRI calls by method and gRPC code. Streams count from their beginning to their end.',
    ['method', 'code'],
    SECONDS,
  );
  return (rpc, request, traceparent): CallObservation => {
    const began = performance.now();
    const span = tracer && startSpan(tracer, rpc, traceparent, traceOf(request));
    return {
      traceparent: span?.traceparent,
      traceId: span && isSampled(span.traceparent) ? traceIdOf(span.traceparent) : undefined,
      ended: (error) => {
        duration?.({ method: rpc, code: error?.code ?? 'OK' }, (performance.now() - began) / 1000);
        span?.end(error);
      },
    };
  };
}

/** The kubelet's trace goes on where it sends one; a call without one belongs to the trace of its sandbox. */
function startSpan(
  tracer: Tracer,
  rpc: string,
  caller: string | undefined,
  sandbox: string | undefined,
): Span | undefined {
  if (caller === undefined && !CHANGING.has(rpc)) return undefined;
  const elsewhere = caller !== undefined && sandbox !== undefined && traceIdOf(caller) !== traceIdOf(sandbox);
  return tracer.start(rpc, {
    parent: caller ?? sandbox,
    links: elsewhere ? [sandbox] : [],
    kind: 'server',
    attributes: { 'rpc.system': 'grpc', 'rpc.method': rpc },
  });
}
