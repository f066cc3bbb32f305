/**
 * Clock and randomness, which a clone inherits from its template and must not keep. Both are set by one small program of
 * the guest image (guest-image/refresh-program.ts): Node can neither step the clock by milliseconds nor make the kernel
 * reseed its generator at once.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, writeSync } from 'node:fs';
import type { Writable } from 'node:stream';
import { InfraletError } from '../base/errors.ts';
import { runCommand } from './commands.ts';
import { type AgentOptions, LIMITS } from './options.ts';

export interface Refresh {
  /** Milliseconds since the epoch; 0 leaves the clock alone. */
  readonly clockMs: number;
  /** Mixed into the kernel's pool before it reseeds; nothing is reseeded when empty. */
  readonly entropy: Uint8Array;
}

type RefreshOptions = Pick<AgentOptions, 'refreshCommand' | 'dateCommand' | 'entropyFile'>;

/** Rejects when it could not be done. A clock that is right already is left alone. */
export async function refresh({ clockMs, entropy }: Refresh, options: RefreshOptions): Promise<void> {
  const since = performance.now();
  // Only time can pass from here on: monotonic, since the wall clock is what is being set.
  const target = (): number => clockMs + (performance.now() - since);
  const step = clockMs > 0 && Math.abs(Date.now() - clockMs) > LIMITS.clockToleranceMs;
  if (!step && entropy.length === 0) return;
  if (options.refreshCommand !== '') {
    await both(options.refreshCommand, () => (step ? target() : 0), entropy);
    return;
  }
  if (entropy.length > 0) mix(entropy, options.entropyFile);
  if (step) await setByDate(target, options.dateCommand);
}

/** Programs that are started already and wait for their input: a template starts them, its clones use them. */
const waiting: Started[] = [];

interface Started {
  readonly stdin: Writable;
  readonly ended: Promise<unknown[]>;
}

/** Starting a program costs an emulated machine as much as all that follows. */
export function prepareRefreshes(count: number, { refreshCommand }: RefreshOptions): void {
  if (refreshCommand === '') return;
  while (waiting.length < count) waiting.push(start(refreshCommand));
}

function start(program: string): Started {
  const child = spawn(program, [], { stdio: ['pipe', 'ignore', 'ignore'] });
  child.stdin.on('error', () => undefined);
  const ended = once(child, 'exit');
  ended.catch(() => undefined);
  return { stdin: child.stdin, ended };
}

/** The time is taken when the program runs and waits for it. */
async function both(program: string, time: () => number, entropy: Uint8Array): Promise<void> {
  const { stdin, ended } = waiting.shift() ?? start(program);
  const head = Buffer.alloc(16);
  const now = time();
  head.writeBigInt64LE(BigInt(Math.floor(now / 1000)), 0);
  head.writeBigInt64LE(BigInt(Math.round((now % 1000) * 1e6)), 8);
  stdin.end(Buffer.concat([head, entropy]));
  const [code, signal]: unknown[] = await ended;
  if (code !== 0)
    throw new InfraletError(
      'INTERNAL',
      `${program} failed (exit code ${JSON.stringify(code)}, signal ${JSON.stringify(signal)})`,
    );
}

/** On a developer's host, without the program: mixed in, used at the kernel's next reseed. */
function mix(bytes: Uint8Array, file: string): void {
  const fd = openSync(file, 'a');
  try {
    writeSync(fd, bytes);
  } finally {
    closeSync(fd);
  }
}

async function setByDate(target: () => number, dateCommand: string): Promise<void> {
  try {
    await runCommand(dateCommand, ['-s', `@${(target() / 1000).toFixed(3)}`]);
  } catch {
    // busybox knows whole seconds only.
    await runCommand(dateCommand, ['-s', `@${Math.round(target() / 1000)}`]);
  }
}
