/**
 * Between grpc-js and our handlers: one AbortSignal per call (deadline, client gone, shutdown), errors to statuses,
 * one log line at start and end. Handlers are async functions and know nothing of gRPC.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type ServerUnaryCall,
  type ServerWritableStream,
} from '@grpc/grpc-js';
import { InfraletError } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';
import type { Logger } from '../telemetry/log.ts';
import { type CallTracker, withinCall } from './calls.ts';
import { callError, isFault, toStatus } from './status.ts';

export interface CallContext {
  readonly rpc: string;
  /** Random; on every log line of this call. */
  readonly requestId: string;
  /** Fires when the client's deadline passes, the client goes away, or the daemon shuts down. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** W3C trace context of this call; undefined: it is not traced. */
  readonly traceparent: string | undefined;
}

/** One call as it is watched from outside. */
export interface CallObservation {
  /** Of its own span. */
  readonly traceparent: string | undefined;
  /** For its log lines. */
  readonly traceId: string | undefined;
  ended(error?: InfraletError): void;
}

/** @param traceparent as the caller sent it; not checked. */
export type ObserveCall = (rpc: string, request: unknown, traceparent: string | undefined) => CallObservation;

export interface AdapterOptions {
  readonly calls: CallTracker;
  readonly clock: Clock;
  readonly log: Logger;
  /** A call longer than this many milliseconds is warned about. */
  readonly slowMs: (rpc: string) => number;
  readonly observe?: ObserveCall | undefined;
}

interface Call extends CallContext, Disposable {
  /** Logs the end; `error` undefined means OK. */
  readonly ended: (error?: InfraletError) => void;
}

type AnyCall = Pick<ServerUnaryCall<unknown, unknown>, 'on' | 'getDeadline' | 'request' | 'metadata'>;

/** A unary handler as grpc-js wants it. */
export function unary<Request, Response>(
  options: AdapterOptions,
  rpc: string,
  handle: (request: Request, context: CallContext) => Promise<Response>,
): handleUnaryCall<Request, Response> {
  return (call, callback) => {
    void (async () => {
      try {
        // Disposed of, which marks the end of the call, only after the answer has been handed over.
        using context = begin(options, 'unary', rpc, call);
        try {
          const response = await withinCall(handle(call.request, context), context.signal);
          context.ended();
          callback(null, response);
        } catch (error) {
          const failure = callError(error, context.signal);
          context.ended(failure);
          callback(toStatus(failure));
        }
      } catch (error) {
        callback(toStatus(InfraletError.from(error)));
      }
    })();
  };
}

/** A handler whose answers are a stream; the stream ends when the iteration does. */
export function serverStream<Request, Response>(
  options: AdapterOptions,
  rpc: string,
  handle: (request: Request, context: CallContext) => AsyncIterable<Response>,
): handleServerStreamingCall<Request, Response> {
  return (call) => {
    void (async () => {
      try {
        using context = begin(options, 'stream', rpc, call);
        try {
          await forward(handle(call.request, context), call, context.signal);
          context.ended();
          call.end();
        } catch (error) {
          const failure = callError(error, context.signal);
          context.ended(failure);
          call.emit('error', toStatus(failure));
        }
      } catch (error) {
        call.emit('error', toStatus(InfraletError.from(error)));
      }
    })();
  };
}

async function forward<Response>(
  messages: AsyncIterable<Response>,
  call: ServerWritableStream<unknown, Response>,
  signal: AbortSignal,
): Promise<void> {
  const iterator = messages[Symbol.asyncIterator]();
  try {
    let pending = iterator.next();
    // What was asked for has begun: a client that waits for news can know that it will miss none.
    call.sendMetadata(new Metadata());
    for (;;) {
      const next = await withinCall(pending, signal);
      if (next.done) return;
      if (!call.write(next.value)) await once(call, 'drain', { signal });
      pending = iterator.next();
    }
  } finally {
    // Not awaited: an iterator that is stuck in next() answers return() only after that.
    iterator.return?.().then(undefined, () => undefined);
  }
}

function begin(options: AdapterOptions, kind: 'unary' | 'stream', rpc: string, call: AnyCall): Call {
  const { clock } = options;
  const controller = new AbortController();
  const ticket = options.calls.enter(kind, controller);
  const requestId = randomBytes(6).toString('hex');
  const observed = options.observe?.(rpc, call.request, sentTrace(call.metadata));
  const { traceId, traceparent } = observed ?? {};
  const log = options.log.child({ rpc, requestId, ...(traceId === undefined ? {} : { traceId }) });
  const started = clock.now();
  // grpc-js says "cancelled" for both, and also after a normal end, when nobody listens to the signal any more.
  call.on('cancelled', () => controller.abort(endOfCall(rpc, Number(call.getDeadline()))));
  log.debug('call started');
  return {
    rpc,
    requestId,
    signal: controller.signal,
    log,
    traceparent,
    ended: (error) => {
      observed?.ended(error);
      const durationMs = Math.round(clock.now() - started);
      const fields = { code: error?.code ?? 'OK', durationMs };
      if (!error) log.debug('call ended', fields);
      else if (isFault(error.code)) log.error('call failed', { ...fields, error, ...error.context });
      else log.info('call refused', { ...fields, reason: error.message, ...error.context });
      if (kind === 'unary' && durationMs > options.slowMs(rpc)) log.warn('slow call', fields);
    },
    [Symbol.dispose]: () => ticket[Symbol.dispose](),
  };
}

function sentTrace(metadata: Metadata): string | undefined {
  const [sent] = metadata.get('traceparent');
  return sent === undefined ? undefined : String(sent);
}

/** Timers may fire a little before the deadline by the wall clock. */
const TIMER_SLACK_MS = 5;

function endOfCall(rpc: string, deadline: number): InfraletError {
  if (Date.now() + TIMER_SLACK_MS >= deadline) {
    return new InfraletError('DEADLINE_EXCEEDED', `${rpc} did not end before the client's deadline`);
  }
  return new InfraletError('CANCELLED', `the client gave up on ${rpc}`);
}
