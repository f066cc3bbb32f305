/** `Watch`: heartbeats, samples and container events for one reader, with a bounded backlog. */
import type { ServerWritableStream } from '@grpc/grpc-js';
import type { Sample } from '../gen/infralet/agent/v1/Sample.ts';
import type { WatchEvent } from '../gen/infralet/agent/v1/WatchEvent.ts';
import type { WatchRequest__Output } from '../gen/infralet/agent/v1/WatchRequest.ts';
import type { EventHub } from './events.ts';
import type { Interruptions } from './interruptions.ts';
import { LIMITS } from './options.ts';
import type { Sampler } from './sampler.ts';

export function watch(
  call: ServerWritableStream<WatchRequest__Output, WatchEvent>,
  hub: EventHub,
  sampler: Sampler,
  interruptions: Interruptions,
  agentSignal: AbortSignal,
): void {
  const asked = Number(call.request.heartbeatMs);
  const everyMs = Math.min(Math.max(asked || 0, LIMITS.heartbeatMinMs), LIMITS.heartbeatMaxMs);
  let backlog: Buffer[] = [];
  let blocked = false;
  let resync = false;

  const send = (event: WatchEvent): void => {
    if (!call.write(event)) blocked = true;
  };
  const flush = (): void => {
    blocked = false;
    if (resync) {
      resync = false;
      send({ resync: {} });
    }
    // In bulk: shifting one by one from a long array is slow.
    const waiting = backlog;
    backlog = [];
    for (const [index, next] of waiting.entries()) {
      if (blocked) {
        backlog = waiting.slice(index);
        return;
      }
      send({ containerEvent: next });
    }
  };
  const heartbeat = (): void => {
    // A reader that is behind needs no more of them: it will see that they are missing.
    if (blocked) return;
    send({ heartbeat: {} });
  };

  call.on('drain', flush);
  const membership = hub.add(
    {
      event: (bytes) => {
        if (!blocked) send({ containerEvent: bytes });
        else if (backlog.length < LIMITS.watchBacklog) backlog.push(bytes);
        else {
          backlog = [];
          resync = true;
        }
      },
      resync: () => {
        // Everything read after this is newer than what still waits.
        backlog = [];
        if (blocked) resync = true;
        else send({ resync: {} });
      },
    },
    agentSignal,
  );
  heartbeat();
  // Never left out for a reader that is behind: there is one.
  const notice = interruptions.listen((interruption) => send({ interruption }));
  const timer = setInterval(heartbeat, everyMs);
  const sampling = sampleInto(call.request, sampler, (sample) => {
    // The next one says it all: nothing is kept for a reader that is behind.
    if (!blocked) send({ sample });
  });
  const stop = (): void => {
    clearInterval(timer);
    sampling[Symbol.dispose]();
    membership[Symbol.dispose]();
    notice[Symbol.dispose]();
  };
  call.on('cancelled', stop);
  call.on('close', stop);
  call.on('error', stop);
}

/**
 * The first sample comes at a random moment of the interval: after a restart of the daemon all machines would sample, and
 * be read, at the same moment for ever after; and a pod that is being made has better things to do.
 */
function sampleInto(request: WatchRequest__Output, sampler: Sampler, send: (sample: Sample) => void): Disposable {
  const asked = Number(request.sampleMs);
  if (!(asked > 0)) return { [Symbol.dispose]: () => undefined };
  const everyMs = Math.min(Math.max(asked, LIMITS.sampleMinMs), LIMITS.sampleMaxMs);
  const layerMs = Math.max(Number(request.layerMs), LIMITS.sampleMinMs);
  const sample = (): void => send(sampler.take(layerMs));
  let timer = setTimeout(
    () => {
      sample();
      timer = setInterval(sample, everyMs);
    },
    everyMs * (0.1 + 0.9 * Math.random()),
  );
  return { [Symbol.dispose]: () => clearTimeout(timer) };
}
