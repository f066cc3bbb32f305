/**
 * Containers' logs. containerd writes a log to a FIFO; a program of its own (`keep-log` in the guest image) takes it from
 * there into files `sN`, N being the offset of their first byte in the whole log, and stops at a bound, so that the container
 * waits when the node does not follow. The agent only reads these files and removes those that the node has. It can end at
 * any instruction: nothing that was read from the FIFO is in its memory alone.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { GUEST_LOG_FIFO } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { runCommand } from './commands.ts';
import { components } from './directory.ts';
import { type AgentOptions, LIMITS } from './options.ts';

export const ENDED = 'ended';
const BOUND = 'bound';
const TASK = 'task';

export interface Piece {
  /** Offset of its first byte. */
  readonly start: number;
  readonly path: string;
}

export class Logs {
  readonly #root: string;
  readonly #command: string;
  readonly #tasks: string;
  readonly #log: Logger;
  /** Keepers that this agent started; those of an agent before it are found by their directory. */
  readonly #keepers = new Map<string, ChildProcess>();

  constructor(options: Pick<AgentOptions, 'roots' | 'keepLogCommand' | 'bundlesDir'>, log: Logger) {
    this.#root = options.roots.ROOT_LOGS;
    this.#command = options.keepLogCommand;
    this.#tasks = options.bundlesDir;
    this.#log = log;
  }

  /** Absolute path of a log's directory. */
  path(name: string): string {
    const [component, ...more] = components(name);
    if (component === undefined || more.length > 0) {
      throw new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(name.slice(0, 200))} is not the name of a log`);
    }
    return join(this.#root, component);
  }

  async make(name: string, bound: number, containerId: string): Promise<void> {
    const directory = this.path(name);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    // Files of a log are of one size from its beginning on: another bound is another number of them.
    const bytes = pieceBytes(directory) ?? Math.ceil(Math.max(bound, LIMITS.logMinBytes) / LIMITS.logFiles);
    const files = Math.max(Math.ceil(bound / bytes), LIMITS.logFiles);
    const temporary = join(directory, `${BOUND}.new`);
    writeFileSync(temporary, `${bytes} ${files}\n`);
    renameSync(temporary, join(directory, BOUND));
    if (containerId !== '') {
      if (!/^[0-9a-f]{64}$/.test(containerId))
        throw new InfraletError(
          'INVALID_ARGUMENT',
          `log ${name}: ${JSON.stringify(containerId.slice(0, 80))} is no container id`,
        );
      writeFileSync(join(directory, TASK), `${join(this.#tasks, containerId)}\n`);
    }
    if (!statSync(join(directory, GUEST_LOG_FIFO), { throwIfNoEntry: false })) {
      await runCommand('mknod', ['-m', '600', join(directory, GUEST_LOG_FIFO), 'p']).catch((error: unknown) => {
        // Two calls at once: either one's will do.
        if (!statSync(join(directory, GUEST_LOG_FIFO), { throwIfNoEntry: false })) throw error;
      });
    }
    this.ensureKept(name);
  }

  /** Sees to it that a keeper runs; two of them on one FIFO would mix up its bytes. */
  ensureKept(name: string): void {
    const directory = this.path(name);
    if (this.#keepers.has(name) || keepersOf(directory).length > 0) return;
    const child = spawn('/bin/sh', [this.#command, directory], { stdio: 'ignore', detached: true });
    this.#keepers.set(name, child);
    child.once('error', (error) => this.#log.error('a log cannot be kept', { name, error: error.message }));
    child.once('exit', (code, signal) => {
      this.#keepers.delete(name);
      if (!statSync(directory, { throwIfNoEntry: false })) return;
      this.#log.warn('the keeper of a log ended', { name, code, signal });
    });
  }

  /** The files of a log in order. Throws NOT_FOUND. */
  pieces(name: string): readonly Piece[] {
    const directory = this.path(name);
    try {
      return readdirSync(directory)
        .filter((file) => /^s\d{1,16}$/.test(file))
        .map((file) => ({ start: Number(file.slice(1)), path: join(directory, file) }))
        .sort((a, b) => a.start - b.start);
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) throw new InfraletError('NOT_FOUND', `there is no log ${name}`);
      throw error;
    }
  }

  /** Removes what lies before the offset. The last file stays: its name and size say where the log goes on. */
  trim(name: string, offset: number): void {
    const pieces = this.pieces(name);
    for (const [index, { path }] of pieces.entries()) {
      const next = pieces[index + 1];
      if (!next || next.start > offset) return;
      unlinkSync(path);
    }
  }

  remove(name: string): void {
    const directory = this.path(name);
    // In the directory are the keeper and the program that it runs. Either may end by itself at any moment, and may have
    // made another file while it was told to end.
    for (const pid of keepersOf(directory)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        if (!hasErrno(error, 'ESRCH')) throw error;
      }
    }
    rmSync(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 1 });
  }
}

/** As an earlier call has set it. */
function pieceBytes(directory: string): number | undefined {
  try {
    return Number(readFileSync(join(directory, BOUND), 'utf8').split(' ')[0]) || undefined;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** Processes whose working directory it is, as a directory and not by its name: containers have paths of their own. */
function keepersOf(directory: string): readonly number[] {
  const wanted = statSync(directory, { throwIfNoEntry: false });
  if (!wanted) return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const found = statSync(`/proc/${pid}/cwd`);
        return found.ino === wanted.ino && found.dev === wanted.dev;
      } catch {
        // It ended meanwhile.
        return false;
      }
    })
    .map(Number);
}
