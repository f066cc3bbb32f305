/**
 * A command behind the fake guest's SPDY server, as containerd serves one: waits for all streams of the session, echoes stdin to
 * stdout, and at its end sends a status, resets all streams and closes.
 */
import type { Duplex } from 'node:stream';
import { type ServedStream, SpdyServer } from './spdy-server.ts';

export interface RemoteCommand {
  /** By type. */
  readonly streams: ReadonlyMap<string, ServedStream>;
  readonly server: SpdyServer;
  /** What came on stdin so far. */
  readonly stdin: () => Buffer;
  readonly stdinEnded: () => boolean;
  /** What came on the resize stream. */
  readonly sizes: readonly string[];
  readonly pongs: readonly number[];
  readonly gone: () => boolean;
  /** Ends the session like a command that exits. */
  exit(code: number): void;
  out(type: 'stdout' | 'stderr', bytes: Uint8Array | string): boolean;
}

/** Resolves when `expected` streams are open. `onInput` may answer what comes on stdin. */
export async function serveRemoteCommand(
  socket: Duplex,
  head: Buffer,
  expected: number,
  onInput: (command: RemoteCommand, text: Buffer) => void = () => undefined,
): Promise<RemoteCommand> {
  const ready = Promise.withResolvers<void>();
  const streams = new Map<string, ServedStream>();
  const input: Buffer[] = [];
  const sizes: string[] = [];
  const pongs: number[] = [];
  let ended = false;
  let gone = false;
  const idOf = (type: string): number => streams.get(type)?.id ?? 0;
  const server = new SpdyServer(socket, head, {
    stream: (stream) => {
      streams.set(stream.headers['streamtype'] ?? '', stream);
      server.reply(stream.id);
      if (streams.size === expected) ready.resolve();
    },
    data: (id, bytes) => {
      if (id === idOf('resize')) sizes.push(bytes.toString());
      if (id !== idOf('stdin')) return;
      input.push(bytes);
      onInput(command, bytes);
    },
    fin: (id) => {
      if (id === idOf('stdin')) ended = true;
    },
    ping: (id) => pongs.push(id),
    closed: () => {
      gone = true;
    },
  });
  const command: RemoteCommand = {
    streams,
    server,
    stdin: () => Buffer.concat(input),
    stdinEnded: () => ended,
    sizes,
    pongs,
    gone: () => gone,
    out: (type, bytes) => server.send(idOf(type), Buffer.from(bytes)),
    exit: (code) => {
      const status =
        code === 0
          ? { metadata: {}, status: 'Success' }
          : {
              metadata: {},
              status: 'Failure',
              reason: 'NonZeroExitCode',
              details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
            };
      server.send(idOf('error'), Buffer.from(JSON.stringify(status)));
      for (const { id } of streams.values()) server.reset(id);
      server.goAway();
      socket.end();
    },
  };
  await ready.promise;
  return command;
}
