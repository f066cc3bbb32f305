/**
 * Traces as the rest of the daemon sees them. Nobody traces unless an endpoint is configured: whoever makes spans takes a
 * `Tracer` from its options and does nothing without. A span is named to others by its W3C `traceparent`.
 * https://www.w3.org/TR/trace-context/
 */
type Attributes = Readonly<Record<string, string | number | boolean>>;

export interface SpanOptions {
  /** `traceparent` of the span that this one is part of; without it a trace begins, which may be left out of the sample. */
  readonly parent?: string | undefined;
  /** `traceparent`s of other traces that have to do with it. */
  readonly links?: readonly string[];
  /** `server`: it answers somebody's call. @default internal */
  readonly kind?: 'server' | 'internal';
  readonly attributes?: Attributes;
}

export interface Span {
  readonly traceparent: string;
  set(attributes: Attributes): void;
  /** Ends it, once. */
  end(error?: { readonly code: string; readonly message: string }): void;
}

export interface Tracer {
  start(name: string, options: SpanOptions): Span;
}

export interface TraceContext {
  readonly traceId: string;
  readonly spanId: string;
  readonly flags: number;
}

/** Later versions may append fields, and version 255 is forbidden. */
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.{0,256})?$/;

/** Undefined when it is none. */
export function parseTraceparent(text: string | undefined): TraceContext | undefined {
  const [, traceId, spanId, flags, more] = TRACEPARENT.exec(text ?? '') ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  if (more !== undefined && text?.startsWith('00')) return undefined;
  return { traceId, spanId, flags: Number.parseInt(flags, 16) };
}

export function formatTraceparent({ traceId, spanId, flags }: TraceContext): string {
  return `00-${traceId}-${spanId}-${(flags & 1).toString(16).padStart(2, '0')}`;
}

export function traceIdOf(traceparent: string | undefined): string | undefined {
  return parseTraceparent(traceparent)?.traceId;
}

export function isSampled(traceparent: string | undefined): boolean {
  return ((parseTraceparent(traceparent)?.flags ?? 0) & 1) === 1;
}
