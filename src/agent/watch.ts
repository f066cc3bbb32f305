/** `Watch`: heartbeats and container events for one reader, with a bounded backlog. */
import type { ServerWritableStream } from '@grpc/grpc-js';
import type { WatchEvent } from '../gen/infralet/agent/v1/WatchEvent.ts';
import type { WatchRequest__Output } from '../gen/infralet/agent/v1/WatchRequest.ts';
import type { EventHub } from './events.ts';
import { LIMITS } from './options.ts';

export function watch(
  call: ServerWritableStream<WatchRequest__Output, WatchEvent>,
  hub: EventHub,
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
    send({
      heartbeat: {
        clockNanos: (BigInt(Date.now()) * 1_000_000n).toString(),
        agentResidentBytes: process.memoryUsage.rss(),
      },
    });
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
  const timer = setInterval(heartbeat, everyMs);
  const stop = (): void => {
    clearInterval(timer);
    membership[Symbol.dispose]();
  };
  call.on('cancelled', stop);
  call.on('close', stop);
  call.on('error', stop);
}
