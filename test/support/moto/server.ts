/** moto's server on a free loopback port, in its own root. It ends with the process that started it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { until } from '../../../src/base/time.ts';
import { motoTree } from './debian.ts';

/** Loading all that it imports takes 2 s; a busy host needs more. */
const START_MS = 60_000;
/** Characters of its log that an error shows. */
const SHOWN = 4000;

export interface MotoServer extends AsyncDisposable {
  readonly endpoint: string;
  /** The end of what it has written: requests, and the stack of what it failed at. */
  log(): string;
}

export async function startMoto(signal: AbortSignal): Promise<MotoServer> {
  const tree = await motoTree(signal);
  const program = ['/usr/bin/python3', '-m', 'moto.server', '-H', '127.0.0.1', '-p', '0'];
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', 'chroot', tree, ...program], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PYTHONUNBUFFERED: '1', LC_ALL: 'C.UTF-8' },
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      log = (log + text).slice(-200_000);
    });
  }
  const dispose = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  };
  try {
    const endpoint = await until(
      async () => {
        if (child.exitCode !== null) throw new Error(`moto ended with exit code ${child.exitCode}`);
        const address = /Running on (http:\/\/127\.0\.0\.1:\d+)/.exec(log)?.[1];
        if (address === undefined) return undefined;
        const answer = await fetch(`${address}/moto-api/data.json`, { signal });
        return answer.ok ? address : undefined;
      },
      { everyMs: 50, signal: AbortSignal.any([signal, AbortSignal.timeout(START_MS)]) },
    );
    return { endpoint, log: () => log.slice(-SHOWN), [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw new Error(`moto did not start:\n${log.slice(-SHOWN)}`, { cause: error });
  }
}
