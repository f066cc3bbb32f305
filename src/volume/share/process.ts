/** One share's server as a process: started apart from the daemon, since pods go on while the daemon is away. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, readFile, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { z } from 'zod';
import { hasErrno, InfraletError } from '../../base/errors.ts';
import { writeFileAtomic } from '../../base/files.ts';
import { identify, isAlive, type ProcessIdentity, readProc, signalProcess } from '../../base/process-identity.ts';
import { until, withTimeout } from '../../base/time.ts';
import { type JailOptions, jailCommand, SOCKET } from './jail.ts';

/** A second where nothing else runs. */
const START_MS = 30_000;
const STOP_MS = 10_000;
const POLL_MS = 20;
/** Of the server's log, in an error. */
const LOG_TAIL = 1000;

const ANSWER_MS = 1000;
/** RFC 5531 in one fragment: a call of NFS 4's procedure 0, which does nothing, without credentials. */
const NULL_CALL = Buffer.from(Uint32Array.of(0x8000_0028, 1, 0, 2, 100_003, 4, 0, 0, 0, 0, 0).buffer).swap32();

const recordSchema = z.strictObject({ pid: z.int(), startTime: z.string() });

/** Starts the server of `directory` unless it runs; resolves when it takes connections. */
export async function startServer(
  directory: string,
  share: Omit<JailOptions, 'jail'>,
  signal: AbortSignal,
): Promise<ProcessIdentity> {
  const known = await runningServer(directory);
  if (known) return known;
  const jail = join(directory, 'jail');
  await mkdir(jail, { recursive: true, mode: 0o700 });
  const log = await open(join(directory, 'log'), 'w', 0o600);
  const [file, ...args] = jailCommand({ ...share, jail });
  let server: ProcessIdentity | undefined;
  try {
    const child = spawn(file, args, { stdio: ['ignore', log.fd, log.fd], detached: true, cwd: '/' });
    child.unref();
    await once(child, 'spawn');
    server = await identify(child.pid ?? 0);
  } finally {
    await log.close();
  }
  if (!server) throw await failed(directory, share.source);
  await writeFileAtomic(join(directory, 'server.json'), JSON.stringify(server), 0o600);
  try {
    using limit = withTimeout(signal, START_MS, `the start of the file server for ${share.source}`);
    await until(() => ready(server, directory, share.source), { everyMs: POLL_MS, signal: limit });
    return server;
  } catch (error) {
    await stopServer(directory);
    throw error;
  }
}

async function ready(server: ProcessIdentity, directory: string, source: string): Promise<true | undefined> {
  if (!(await isAlive(server))) throw await failed(directory, source);
  try {
    const socket = await connectServer(server);
    try {
      // It listens before it serves, and hangs up until it does.
      socket.write(NULL_CALL);
      await once(socket, 'data', { signal: AbortSignal.timeout(ANSWER_MS) });
      return true;
    } finally {
      socket.destroy();
    }
  } catch {
    return undefined;
  }
}

/** A connection to a running server. Its socket lies in its own root. */
export async function connectServer({ pid }: ProcessIdentity): Promise<Socket> {
  // The wrapper waits outside; its one child is the first process inside.
  const inner = (await readProc(`/proc/${pid}/task/${pid}/children`))?.trim();
  if (!inner) throw new InfraletError('UNAVAILABLE', 'the file server is not there (yet)');
  const socket = connect({ path: `/proc/${inner}/root${SOCKET}`, allowHalfOpen: true });
  await once(socket, 'connect');
  return socket;
}

export async function runningServer(directory: string): Promise<ProcessIdentity | undefined> {
  try {
    const server = recordSchema.parse(JSON.parse(await readFile(join(directory, 'server.json'), 'utf8')));
    return (await isAlive(server)) ? server : undefined;
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || error instanceof SyntaxError || error instanceof z.ZodError) return undefined;
    throw error;
  }
}

/** Ends the server, with everything in its namespaces, and removes its directory. */
export async function stopServer(directory: string): Promise<void> {
  const server = await runningServer(directory);
  if (server) {
    await signalProcess(server, 'SIGKILL');
    const gone = async (): Promise<true | undefined> => ((await isAlive(server)) ? undefined : true);
    await until(gone, { everyMs: POLL_MS, signal: AbortSignal.timeout(STOP_MS) });
  }
  await rm(directory, { recursive: true, force: true });
}

async function failed(directory: string, source: string): Promise<InfraletError> {
  const log = await readFile(join(directory, 'log'), 'utf8').catch(() => '');
  return new InfraletError('INTERNAL', `the file server for ${source} ended: ${log.trim().slice(-LOG_TAIL)}`, {
    hint: 'this host must allow mount namespaces and FUSE (/dev/fuse)',
  });
}
