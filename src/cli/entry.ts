/** From the process's own arguments, streams and signals to an exit code. */
import { hasErrno, InfraletError, isAbortError } from '../base/errors.ts';
import { printError, runCommand } from './program.ts';
import { listenForShutdown } from './shutdown.ts';

export async function main(): Promise<number> {
  using shutdown = listenForShutdown((name) => {
    process.stderr.write(`\n${name}: stopping in good order; once more to stop at once\n`);
  });
  // A reader that has seen enough, such as `| head`, is no failure.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error) => {
      if (!hasErrno(error, 'EPIPE')) throw error;
    });
  }
  const io = { out: process.stdout, err: process.stderr, signal: shutdown.signal };
  try {
    return await runCommand(process.argv.slice(2), io);
  } catch (error) {
    if (shutdown.signal.aborted && isAbortError(error)) return 130;
    const { message, hint, code } = InfraletError.from(error);
    printError(io, message, hint);
    // A fault of ours: the stack tells where.
    if (code === 'INTERNAL' && error instanceof Error && !(error instanceof InfraletError)) {
      process.stderr.write(`${error.stack ?? ''}\n`);
    }
    return 1;
  }
}
