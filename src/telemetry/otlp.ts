/** OpenTelemetry's own spans and exporter behind `Tracer`. Loaded only when an endpoint is configured. */
import { ROOT_CONTEXT, type SpanContext, SpanKind, SpanStatusCode, TraceFlags, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import { formatTraceparent, parseTraceparent, type Span, type SpanOptions, type Tracer } from './trace.ts';

export interface TracingOptions {
  /** Takes OTLP as JSON by HTTP POST. */
  readonly endpoint: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Of traces that begin here; those that go on keep their caller's decision. */
  readonly sampleRatio: number;
  /** Of one export, milliseconds. */
  readonly timeout: number;
  readonly cluster: string;
  readonly node: string;
  readonly version: string;
}

/** Spans that wait for a collector; those beyond are dropped, so that one that is away costs no more than this. */
const MAX_WAITING = 2048;
/** A second: an operator who has just seen a pod fail wants to see its trace. */
const EXPORT_EVERY_MS = 1000;
/** Of an error message in a span. */
const MAX_TEXT = 2000;

/** Disposing sends what is left. */
export function startTracing(options: TracingOptions): Tracer & AsyncDisposable {
  const exporter = new OTLPTraceExporter({
    url: options.endpoint,
    headers: { ...options.headers },
    timeoutMillis: options.timeout,
  });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({
      'service.name': 'infralet',
      'service.version': options.version,
      'host.name': options.node,
      'k8s.node.name': options.node,
      'k8s.cluster.name': options.cluster,
    }),
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(options.sampleRatio) }),
    spanLimits: { attributeValueLengthLimit: MAX_TEXT },
    spanProcessors: [
      new BatchSpanProcessor({
        exporter,
        maxQueueSize: MAX_WAITING,
        scheduledDelayMillis: EXPORT_EVERY_MS,
        exportTimeoutMillis: options.timeout,
      }),
    ],
  });
  const tracer = provider.getTracer('infralet', options.version);
  return {
    start: (name, { parent, links = [], kind = 'internal', attributes = {} }: SpanOptions): Span => {
      const context = remote(parent);
      const span = tracer.startSpan(
        name,
        {
          kind: kind === 'server' ? SpanKind.SERVER : SpanKind.INTERNAL,
          attributes: { ...attributes },
          links: links.flatMap((link) => {
            const linked = remote(link);
            return linked ? [{ context: linked }] : [];
          }),
        },
        context ? trace.setSpanContext(ROOT_CONTEXT, context) : ROOT_CONTEXT,
      );
      const { traceId, spanId, traceFlags } = span.spanContext();
      return {
        traceparent: formatTraceparent({ traceId, spanId, flags: traceFlags }),
        set: (more) => void span.setAttributes({ ...more }),
        end: (error) => {
          if (error) {
            span.setAttribute('error.type', error.code);
            span.setStatus({ code: SpanStatusCode.ERROR, message: error.message.slice(0, MAX_TEXT) });
          }
          span.end();
        },
      };
    },
    [Symbol.asyncDispose]: async () => {
      // A collector that is away must not fail the shutdown.
      await provider.shutdown().catch(() => undefined);
    },
  };
}

function remote(traceparent: string | undefined): SpanContext | undefined {
  const parsed = parseTraceparent(traceparent);
  if (!parsed) return undefined;
  const traceFlags = parsed.flags & TraceFlags.SAMPLED;
  return { traceId: parsed.traceId, spanId: parsed.spanId, traceFlags, isRemote: true };
}
