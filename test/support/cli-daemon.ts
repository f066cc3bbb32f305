/** The daemon's side of the command line: a configuration, and an admin server whose answers a test gives. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { adminSocket } from '../../src/admin/protocol.ts';
import { type AdminServerOptions, startAdminServer } from '../../src/admin/server.ts';
import { InfraletError } from '../../src/base/errors.ts';
import { runCommand } from '../../src/cli/program.ts';
import { nullLogger } from '../../src/telemetry/log.ts';
import { captureIo } from './cli-io.ts';

export const ID = 'a'.repeat(32);
const now = Date.now();
/** A ready sandbox, as the daemon tells of it. */
export const INFO = {
  id: ID,
  podName: 'web',
  podNamespace: 'shop',
  podUid: 'uid-1',
  attempt: 0,
  createdAt: now - 90_000,
  state: 'ready',
  wanted: 'ready',
  ready: true,
  listed: true,
  reason: '',
  instanceId: 'i-1',
  podIp: '10.9.0.2',
  machine: {
    cpuMillis: 1500,
    memoryBytes: 512 * 2 ** 20,
    diskBytes: 10 * 2 ** 30,
    usage: { memoryBytes: 200 * 2 ** 20, diskBytes: 5 * 2 ** 20 },
  },
  timeline: [
    { phase: 'launch', ms: 120 },
    { phase: 'kernel', ms: 2500 },
  ],
  lastError: '',
};

/** What the daemon says of a sandbox that is being made and has its troubles. */
export const BEING_MADE = {
  ...INFO,
  id: 'b'.repeat(32),
  podName: 'slow',
  createdAt: now - 3_000,
  state: 'requested',
  ready: false,
  listed: false,
  instanceId: '',
  podIp: '',
  machine: { ...INFO.machine, usage: null },
  timeline: [],
  lastError: 'no machine: the cloud is full\nand says so at length\u001b[31m',
};

async function unasked(): Promise<never> {
  throw new InfraletError('INTERNAL', 'this test does not expect to be asked for that');
}

export interface CliDaemon extends AsyncDisposable {
  readonly directory: string;
  /** Of the CRI. */
  readonly socket: string;
  /** Path of the configuration file. */
  readonly config: string;
  /** Serves the admin socket; what is not given fails when it is asked for. */
  serve(answers: Partial<AdminServerOptions>): Promise<AsyncDisposable>;
  /** Runs a command with this configuration. */
  run(...words: readonly string[]): Promise<{ readonly code: number; readonly out: string }>;
}

export async function cliDaemon(): Promise<CliDaemon> {
  const directory = await mkdtemp(join(tmpdir(), 'infralet-cli-'));
  const socket = join(directory, 'cri.sock');
  const config = join(directory, 'infralet.yaml');
  await writeFile(config, `server:\n  socket: ${socket}\nstateDir: ${directory}\n`);
  return {
    directory,
    socket,
    config,
    serve: async (answers) =>
      await startAdminServer({
        path: adminSocket(socket),
        images: { load: unasked },
        list: unasked,
        doctor: unasked,
        pools: unasked,
        describe: unasked,
        explainSize: unasked,
        orphans: { orphans: unasked, remove: unasked },
        volumes: { attach: unasked, detach: unasked },
        why: unasked,
        drainMs: 100,
        log: nullLogger,
        ...answers,
      }),
    run: async (...words) => {
      const io = captureIo();
      return { code: await runCommand([...words, '--config', config], io), out: io.stdout() };
    },
    [Symbol.asyncDispose]: async () => await rm(directory, { recursive: true }),
  };
}
