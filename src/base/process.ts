/** Running other programs: results as values, time limits, the end of stderr in every error. */
import { execa } from 'execa';
import { InfraletError } from './errors.ts';

export interface RunOptions {
  readonly signal: AbortSignal;
  /** Milliseconds after which the program is ended (SIGTERM, then SIGKILL after 2 s). */
  readonly timeoutMs: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Bytes or text for standard input; secrets go here or into a file, never into argv. */
  readonly input?: string | Uint8Array;
  /** Called with each line of stderr, for progress. */
  readonly onStderrLine?: (line: string) => void;
}

/** Most that is kept of stdout and of stderr. */
const MAX_OUTPUT_BYTES = 8 * 1024 * 1024;
/** Of stderr, in an error's message. */
const TAIL_CHARACTERS = 2000;

export interface RunResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program and returns its result, whatever its exit code. Throws when it cannot start, times out or is cancelled. */
export async function tryRun(file: string, args: readonly string[], options: RunOptions): Promise<RunResult> {
  const child = execa(file, args, {
    cancelSignal: options.signal,
    timeout: options.timeoutMs,
    forceKillAfterDelay: 2000,
    maxBuffer: MAX_OUTPUT_BYTES,
    reject: false,
    stripFinalNewline: false,
    ...(options.env ? { env: options.env } : {}),
    ...(options.cwd ? { cwd: options.cwd } : {}),
    ...(options.input === undefined ? { stdin: 'ignore' as const } : { input: options.input }),
  });
  if (options.onStderrLine) {
    const onLine = options.onStderrLine;
    void (async () => {
      for await (const line of child.iterable({ from: 'stderr' })) onLine(line);
    })().catch(() => undefined);
  }
  const result = await child;
  if (result.isCanceled) options.signal.throwIfAborted();
  if (result.timedOut) {
    throw new InfraletError('DEADLINE_EXCEEDED', `${file} ${args[0] ?? ''} took longer than ${options.timeoutMs} ms`, {
      context: { stderr: tail(result.stderr) },
    });
  }
  if (result.exitCode === undefined) {
    const missing = result.code === 'ENOENT';
    throw new InfraletError('INTERNAL', missing ? `${file} is not installed` : `${file}: ${result.shortMessage}`, {
      cause: result.cause,
      ...(missing ? { hint: 'run `infralet doctor`: it names the package and the command to install it' } : {}),
    });
  }
  return { exitCode: result.exitCode, stdout: result.stdout, stderr: result.stderr };
}

/** Runs a program that must succeed; returns its stdout. */
export async function run(file: string, args: readonly string[], options: RunOptions): Promise<string> {
  const result = await tryRun(file, args, options);
  if (result.exitCode !== 0) {
    throw new InfraletError(
      'INTERNAL',
      `${file} ${args.slice(0, 2).join(' ')} failed with exit code ${result.exitCode}: ${tail(result.stderr)}`,
    );
  }
  return result.stdout;
}

function tail(text: string): string {
  const trimmed = text.trim();
  return trimmed.length <= TAIL_CHARACTERS ? trimmed : `…${trimmed.slice(-TAIL_CHARACTERS)}`;
}
