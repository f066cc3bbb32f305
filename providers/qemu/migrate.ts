/** Freezing a machine's devices into a file and thawing them from it: QEMU's migration, with the memory left where it is. */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { InfraletError } from '../../src/base/errors.ts';
import { abortable } from '../../src/base/keyed-lock.ts';
import type { Qmp, QmpEvent } from './qmp.ts';
import { STATE_FD } from './spawn.ts';

/** Listens for the end of a migration from before it begins. */
export class MigrationWatch {
  readonly #end = Promise.withResolvers<string>();

  readonly onEvent = (event: QmpEvent): void => {
    const status = event.name === 'MIGRATION' ? event.data['status'] : undefined;
    if (status === 'completed' || status === 'failed' || status === 'cancelled') this.#end.resolve(status);
  };

  /** Resolves when it has completed; rejects when it failed or the emulator has ended, which is how a load fails. */
  async completed(qmp: Qmp, signal: AbortSignal): Promise<void> {
    const gone = qmp.closed.then(() => 'the emulator ended');
    const status = await abortable(Promise.race([this.#end.promise, gone]), signal);
    if (status !== 'completed') throw new InfraletError('UNAVAILABLE', `QEMU's migration failed: ${status}`);
  }
}

const CAPABILITIES = [
  { capability: 'x-ignore-shared', state: true },
  { capability: 'events', state: true },
];

/**
 * Writes the state of a running machine to `file`; the machine stands still after it. The emulator may not open files or
 * start programs any more, so it sends the state to a socket beside the file.
 */
export async function freeze(qmp: Qmp, watch: MigrationWatch, file: string, signal: AbortSignal): Promise<void> {
  // Short: the kernel takes 107 bytes of a socket's path, and state directories may lie deep.
  const path = join(dirname(file), 's');
  const server = createServer();
  const received = once(server, 'connection', { signal }).then(async ([socket]) => {
    await pipeline(socket as Socket, createWriteStream(file, { flags: 'wx', mode: 0o600 }), { signal });
  });
  received.catch(() => undefined);
  try {
    server.listen(path);
    await once(server, 'listening', { signal });
    await qmp.execute('migrate-set-capabilities', { capabilities: CAPABILITIES }, signal);
    await qmp.execute('migrate', { uri: `unix:${path}` }, signal);
    await watch.completed(qmp, signal);
    await received;
  } finally {
    server.close();
  }
}

/** Loads the state into an emulator that was started for it. The machine runs when this resolves. */
export async function thaw(qmp: Qmp, watch: MigrationWatch, signal: AbortSignal): Promise<void> {
  await qmp.execute('migrate-set-capabilities', { capabilities: CAPABILITIES }, signal);
  await qmp.execute('migrate-incoming', { uri: `fd:${STATE_FD}` }, signal);
  await watch.completed(qmp, signal);
}
