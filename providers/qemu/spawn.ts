/** Starts a machine's process: in its cgroup before its first instruction, in a session of its own, without the daemon's files. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { errorMessage, hasErrno, InfraletError } from '../../src/base/errors.ts';
import { abortable } from '../../src/base/keyed-lock.ts';
import { identify, type ProcessIdentity } from '../../src/base/process-identity.ts';
import { until, withTimeout } from '../../src/base/time.ts';
import type { QemuConfig } from './config.ts';
import { Qmp, type QmpEvent } from './qmp.ts';
import type { MachineFiles } from './record.ts';

/** Enters the cgroups named first, then becomes the program. No core dumps: they would hold a tenant's memory. */
const ENTER = `
ulimit -c 0
count=$1; shift
while [ "$count" -gt 0 ]; do echo $$ > "$1/cgroup.procs" || exit 126; shift; count=$((count - 1)); done
exec "$@"`;
/** Kept of what QEMU writes to stderr: it writes a line or two when it fails, nothing otherwise. */
const STDERR_KEPT = 8192;

/** Where the emulator finds the file of device states. */
export const STATE_FD = 3;

export interface Started {
  readonly identity: ProcessIdentity;
  readonly qmp: Qmp;
  /** How the process ended ("exit code 1", "signal SIGKILL") and what it said. Pending while it runs; never rejects. */
  readonly ended: Promise<string>;
}

/**
 * Starts QEMU and waits until it answers. When it ends before that, or does not answer in time, the error quotes what it
 * wrote to stderr; the caller removes what is left.
 */
export async function startQemu(
  options: {
    readonly args: readonly string[];
    readonly cgroupDirs: readonly string[];
    readonly files: MachineFiles;
    readonly config: QemuConfig;
    readonly onEvent: (event: QmpEvent) => void;
    /** Becomes file descriptor 3 (STATE_FD) of the emulator. */
    readonly stateFile?: number;
  },
  signal: AbortSignal,
): Promise<Started> {
  const { args, cgroupDirs, files, config } = options;
  signal.throwIfAborted();
  // no_new_privs: whatever a guest makes of its emulator, it gains nothing from set-uid programs.
  const command = ['setpriv', '--no-new-privs', '--', config.binary, ...args];
  const child = spawn(
    '/bin/sh',
    ['-c', ENTER, 'infralet-machine', String(cgroupDirs.length), ...cgroupDirs, ...command],
    {
      cwd: files.dir,
      detached: true,
      // A pipe, not a file: the machine outlives the daemon, and a file would then grow without anyone to cut it.
      stdio: ['ignore', 'ignore', 'pipe', options.stateFile ?? 'ignore'],
      env: { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin' },
    },
  );
  const ended = watchEnd(child);
  using limit = withTimeout(signal, config.readyTimeout, 'the start of the emulator');
  try {
    await once(child, 'spawn', { signal: limit });
    const pid = child.pid ?? 0;
    const qmp = await ready(files.qmp, config, options.onEvent, ended, limit);
    const identity = await identify(pid);
    if (identity === undefined) throw new InfraletError('UNAVAILABLE', `QEMU ended at once: ${await ended}`);
    child.unref();
    return { identity, qmp, ended };
  } catch (error) {
    child.kill('SIGKILL');
    signal.throwIfAborted();
    if (error instanceof InfraletError && error.code === 'UNAVAILABLE') throw error;
    throw new InfraletError('UNAVAILABLE', `QEMU did not start: ${errorMessage(error)}; ${await ended}`, {
      cause: error,
    });
  }
}

/** Races the first answer against the end of the process. */
async function ready(
  socket: string,
  config: QemuConfig,
  onEvent: (event: QmpEvent) => void,
  ended: Promise<string>,
  signal: AbortSignal,
): Promise<Qmp> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const connected = until(
    async () => {
      try {
        return await Qmp.connect(socket, { timeoutMs: config.readyTimeout, onEvent, signal: either });
      } catch (error) {
        if (hasErrno(error, 'ENOENT', 'ECONNREFUSED')) return undefined;
        throw error;
      }
    },
    { everyMs: 5, signal: either },
  );
  const failed = ended.then((how) => {
    throw new InfraletError('UNAVAILABLE', `QEMU did not start: ${how}`, {
      hint: 'run `infralet doctor`: it checks the emulator and the devices that it needs',
    });
  });
  try {
    return await abortable(Promise.race([connected, failed]), signal);
  } finally {
    stop.abort();
    connected.catch(() => undefined);
  }
}

async function watchEnd(child: ChildProcess): Promise<string> {
  let said = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-STDERR_KEPT);
  });
  if (child.stderr && 'unref' in child.stderr && typeof child.stderr.unref === 'function') child.stderr.unref();
  const { promise, resolve } = Promise.withResolvers<string>();
  child.once('error', (error) => resolve(errorMessage(error)));
  child.once('close', (code, signalName) => {
    resolve(signalName ? `ended by signal ${signalName}` : `exit code ${code ?? 'unknown'}`);
  });
  const how = await promise;
  const words = said.trim();
  return words === '' ? how : `${how}: ${words}`;
}
