/** Figures and spans of the reconciler's steps. */
import { performance } from 'node:perf_hooks';
import { type Meters, SECONDS } from '../telemetry/meters.ts';
import { isSampled, type Tracer } from '../telemetry/trace.ts';
import type { ObserveStep } from './reconciler.ts';

/** Undefined when nobody wants to know. */
export function observeSteps(meters: Meters | undefined, tracer: Tracer | undefined): ObserveStep | undefined {
  if (!meters && !tracer) return undefined;
  const duration = meters?.histogram(
    'infralet_step_seconds',
    'Steps of the reconciler by kind; interrupted: given up, since another had failed or nobody wanted it any more.',
    ['step', 'outcome'],
    SECONDS,
  );
  return (step, record) => {
    const began = performance.now();
    const { traceparent } = record;
    // Without a trace that is sampled there is nothing to be part of: machines of pools, and pods left out of the sample.
    const span =
      tracer && isSampled(traceparent)
        ? tracer.start(step, {
            parent: traceparent,
            attributes: {
              'infralet.sandbox.id': record.id,
              'k8s.pod.uid': record.podUid,
              'k8s.pod.name': record.podName,
              'k8s.namespace.name': record.podNamespace,
            },
          })
        : undefined;
    return (outcome, facts, error) => {
      duration?.({ step, outcome }, (performance.now() - began) / 1000);
      if (facts) span?.set(facts);
      if (outcome === 'interrupted') span?.set({ 'infralet.interrupted': true });
      span?.end(error);
    };
  };
}
