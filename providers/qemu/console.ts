/**
 * A machine's console. The guest writes into a ring of fixed size in the emulator's memory: it can write as much as it
 * likes, with the daemon running or not, and fills no disk. Reading the ring empties it, so what was read is kept in
 * console.log, which is cut to the same size. A guest that stops leaves its emulator paused (see arguments.ts), so its last
 * words are still there to be read; only an emulator that is itself killed takes the unread end with it.
 */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { hasErrno } from '../../src/base/errors.ts';
import { writeFileAtomic } from '../../src/base/files.ts';
import type { Qmp } from './qmp.ts';

export const CONSOLE_DEVICE = 'console';

/** The ring's size: QEMU wants a power of two. */
export function ringSize(bytes: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(bytes, 1024)));
}

/** Moves what the ring holds to the end of `path`, and cuts the file to `maxBytes`. Returns its new content. */
export async function drainConsole(path: string, qmp: Qmp, maxBytes: number, signal: AbortSignal): Promise<Buffer> {
  const answer = await qmp.execute(
    'ringbuf-read',
    { device: CONSOLE_DEVICE, size: ringSize(maxBytes), format: 'base64' },
    signal,
  );
  const fresh = Buffer.from(z.string().parse(answer), 'base64');
  const kept = await savedConsole(path);
  if (fresh.length === 0) return kept;
  const whole = Buffer.concat([kept, fresh]);
  const cut = whole.subarray(Math.max(0, whole.length - maxBytes));
  await writeFileAtomic(path, cut, 0o600);
  return cut;
}

/** What was drained before; empty when nothing was. */
export async function savedConsole(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return Buffer.alloc(0);
    throw error;
  }
}

/** The last `maxBytes` as text, without the control characters that a guest could use on a terminal. */
export function consoleText(bytes: Buffer, maxBytes: number): string {
  const text = bytes.subarray(Math.max(0, bytes.length - maxBytes)).toString('utf8');
  // Escape sequences lose their first character with the other control characters; what is left of them is harmless.
  return text.replace(/[^\P{Cc}\t\n]/gu, '');
}
