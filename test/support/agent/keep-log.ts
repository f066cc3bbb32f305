/** The guest image's keeper of logs on this host: the script with the program that it needs beside it. */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pourProgram } from '../../../src/guest-image/pour-program.ts';

const SCRIPT = fileURLToPath(new URL('../../../config/guest/rootfs/usr/lib/infralet/keep-log', import.meta.url));

/** In a directory of its own, which goes with it. */
export function installKeeper(): Disposable & { readonly path: string } {
  const directory = mkdtempSync(join(tmpdir(), 'infralet-keeper-'));
  const path = join(directory, 'keep-log');
  cpSync(SCRIPT, path);
  writeFileSync(join(directory, 'pour'), pourProgram(), { mode: 0o755 });
  return { path, [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) };
}
