/** Small programs of the guest: their exit code and nothing else. The agent carries no process library. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { LIMITS } from './options.ts';

const execute = promisify(execFile);

/** Rejects when the program is missing, fails or takes too long. */
export async function runCommand(
  file: string,
  args: readonly string[],
  timeout: number = LIMITS.commandMs,
): Promise<void> {
  await execute(file, [...args], { timeout, env: { PATH: process.env['PATH'] ?? '' } });
}
