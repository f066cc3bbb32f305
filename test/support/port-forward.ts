/** Port-forward as kubectl does it today: SPDY inside of a WebSocket, a pair of streams for each connection. */
import { SpdyClient } from '../../src/streaming/spdy/client.ts';
import { openTunnel } from './websocket-tunnel.ts';

export interface PortForward extends Disposable {
  /** Sends `request` to a port and resolves with all that comes back, or rejects with what the error stream says. */
  ask(port: number, request: string): Promise<string>;
}

export async function portForward(url: string, signal: AbortSignal): Promise<PortForward> {
  const { stream } = await openTunnel(url);
  const received = new Map<number, Buffer[]>();
  const ends = new Map<number, () => void>();
  const client = new SpdyClient(stream, {
    data: (id, bytes) => received.get(id)?.push(Buffer.from(bytes)),
    end: (id) => ends.get(id)?.(),
    close: () => {
      for (const end of ends.values()) end();
    },
  });
  let requests = 0;
  let streams = 0;
  let opening: Promise<unknown> = Promise.resolve();
  return {
    ask: async (port, request) => {
      requests += 1;
      const common = { port: String(port), requestid: String(requests) };
      const [errorId, dataId] = [2 * streams + 1, 2 * streams + 3];
      streams += 2;
      const done = [errorId, dataId].map((id) => {
        received.set(id, []);
        const { promise, resolve } = Promise.withResolvers<void>();
        ends.set(id, resolve);
        return promise;
      });
      const headers = [
        { streamtype: 'error', ...common },
        { streamtype: 'data', ...common },
      ];
      // One pair after the other, since their numbers are foretold here.
      const opened = opening.then(() => client.open(headers, signal));
      opening = opened.catch(() => undefined);
      await opened;
      client.finish(errorId);
      client.write(dataId, Buffer.from(request));
      await Promise.all(done);
      const text = (id: number): string => Buffer.concat(received.get(id) ?? []).toString();
      if (text(errorId) !== '') throw new Error(text(errorId));
      client.finish(dataId);
      return text(dataId);
    },
    [Symbol.dispose]: () => stream.destroy(),
  };
}
