/** Running other programs from the bootstrap. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import { SetupError } from './report.mjs';

/** @typedef {{ code: number, stdout: string, stderr: string }} Result */

/**
 * Runs a program to its end and keeps its output. Lines are given to `onLine` as they come.
 * @param {string} file
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, onLine?: (line: string) => void }} [options]
 * @returns {Promise<Result>}
 */
export function capture(file, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: options.env ?? process.env,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout = (stdout + text).slice(-1_000_000);
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr = (stderr + text).slice(-1_000_000);
    });
    if (options.onLine) {
      createInterface({ input: child.stdout }).on('line', options.onLine);
      createInterface({ input: child.stderr }).on('line', options.onLine);
    }
    // Ended from outside, the bootstrap takes what it has started with it.
    /** @type {NodeJS.Signals | undefined} */
    let ended;
    /** @param {NodeJS.Signals} signal */
    const end = (signal) => {
      ended = signal;
      child.kill(signal);
    };
    for (const signal of SIGNALS) process.on(signal, end);
    const done = () => {
      for (const signal of SIGNALS) process.off(signal, end);
    };
    child.on('error', (error) => {
      done();
      reject(error);
    });
    child.on('close', (code, signal) => {
      done();
      if (ended)
        reject(new SetupError(`stopped by ${ended}`, 'start again: what is done is kept', exitCode(null, ended)));
      else resolve({ code: exitCode(code, signal), stdout, stderr });
    });
  });
}

/**
 * Like `capture`, for what must succeed: otherwise the end of its output is shown.
 * @param {string} what
 * @param {string} file
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, onLine?: (line: string) => void, fix?: string,
 *   shown?: boolean }} [options] shown: `onLine` has shown all of it already
 */
export async function must(what, file, args, options = {}) {
  const result = await capture(file, args, options);
  if (result.code !== 0) {
    const output = `${result.stdout}\n${result.stderr}`.trim().split('\n').slice(-30).join('\n');
    const end = options.shown ? '' : `:\n${output}`;
    throw new SetupError(`${what} failed (exit code ${result.code})${end}`, options.fix);
  }
  return result;
}

/**
 * Runs a program on this terminal, hands signals on to it, and resolves with its exit code.
 * @param {string} file
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<number>}
 */
export function foreground(file, args, options = {}) {
  return new Promise((resolve, reject) => {
    // Its own process group: Ctrl-C reaches it once, through `forward`, and not a second time from the terminal,
    // which the child would take for "stop at once".
    const child = spawn(file, args, { stdio: 'inherit', detached: true, ...options });
    let last = 0;
    /** @param {NodeJS.Signals} signal */
    const forward = (signal) => {
      // One Ctrl-C arrives twice: from the terminal, and from npm, which passes it on as well.
      const now = Date.now();
      if (now - last < 300) return;
      last = now;
      child.kill(signal);
    };
    for (const signal of SIGNALS) process.on(signal, forward);
    // npm ends by a SIGTERM without telling its child: then nobody is left who could end us.
    const parent = process.ppid;
    const watch = setInterval(() => {
      if (process.ppid === parent || process.env['npm_lifecycle_event'] === undefined) return;
      clearInterval(watch);
      forward('SIGTERM');
    }, 250);
    const done = () => {
      clearInterval(watch);
      for (const signal of SIGNALS) process.off(signal, forward);
    };
    child.on('error', (error) => {
      done();
      reject(error);
    });
    child.on('exit', (code, signal) => {
      done();
      resolve(exitCode(code, signal));
    });
  });
}

/** @type {readonly NodeJS.Signals[]} */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/**
 * The shell's convention: 128 + number for a program that a signal ended.
 * @param {number | null} code
 * @param {NodeJS.Signals | null} signal
 */
function exitCode(code, signal) {
  if (code !== null) return code;
  return 128 + (signal === null ? 0 : constants.signals[signal]);
}
