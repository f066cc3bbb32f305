/** Listens on a unix socket: file mode, remains of a killed daemon, refusal where somebody still answers. */
import { chmod, lstat, unlink } from 'node:fs/promises';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { ensureDirectory } from '../base/files.ts';

/** sun_path holds 108 bytes with its final zero. */
const MAX_PATH_BYTES = 107;

export interface UnixListener extends AsyncDisposable {
  readonly path: string;
  /** Accepts no more connections and removes the socket file; those accepted stay. */
  stop(): void;
  /** Resolves when no connection is left. */
  quiet(): Promise<void>;
}

export interface UnixListenerOptions {
  readonly path: string;
  /** Permission bits of the socket file. */
  readonly mode: number;
  readonly onConnection: (socket: Socket) => void;
  readonly onError: (error: Error) => void;
}

/** Fails with FAILED_PRECONDITION when another process answers at the path, or something that is no socket lies there. */
export async function listenUnix(options: UnixListenerOptions): Promise<UnixListener> {
  const { path } = options;
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) {
    throw new InfraletError('INVALID_ARGUMENT', `the socket path ${path} is longer than ${MAX_PATH_BYTES} bytes`, {
      hint: 'choose a shorter path for server.socket',
    });
  }
  await ensureDirectory(dirname(path));
  const connections = new Set<Socket>();
  const server = createServer((socket) => {
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
    options.onConnection(socket);
  });
  try {
    await listen(server, path);
  } catch (error) {
    if (!hasErrno(error, 'EADDRINUSE')) throw error;
    await removeStale(path);
    await listen(server, path);
  }
  server.on('error', options.onError);
  const quiet = async (): Promise<void> => {
    await Promise.all([...connections].map(closed));
  };
  await chmod(path, options.mode);
  return {
    path,
    stop: () => {
      if (server.listening) server.close();
    },
    quiet,
    [Symbol.asyncDispose]: async () => {
      if (server.listening) server.close();
      for (const socket of connections) socket.destroy();
      await quiet();
    },
  };
}

async function closed(socket: Socket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.once('close', () => resolve());
  await promise;
}

async function listen(server: Server, path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(path, resolve);
  await promise;
  server.off('error', reject);
}

async function removeStale(path: string): Promise<void> {
  if (!(await lstat(path)).isSocket()) {
    throw new InfraletError('FAILED_PRECONDITION', `${path} exists and is not a socket`, {
      hint: 'move it away, or choose another path for server.socket',
    });
  }
  if (await answers(path)) {
    throw new InfraletError('FAILED_PRECONDITION', `another process already serves ${path}`, {
      hint: `find it with "ss -xlp src ${path}" and stop it, or choose another path for server.socket`,
    });
  }
  await unlink(path);
}

/** Whether somebody accepts connections; a socket file that a killed process left refuses them. */
async function answers(path: string): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const probe = createConnection(path);
  probe.once('connect', () => resolve(true));
  probe.once('error', (error) => {
    if (hasErrno(error, 'ECONNREFUSED', 'ENOENT')) resolve(false);
    // A full backlog is somebody, too.
    else if (hasErrno(error, 'EAGAIN')) resolve(true);
    else reject(error);
  });
  try {
    return await promise;
  } finally {
    probe.destroy();
  }
}
