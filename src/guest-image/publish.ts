/** Building beside the destination, and the swap at the end: a directory is a complete image or the one before. */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { MANIFEST_FILE } from './manifest.ts';

export interface Staging extends AsyncDisposable {
  /** For everything that the build needs on its way. */
  readonly path: string;
  /** What will be the image. */
  readonly image: string;
}

/** A working directory on the destination's file system, removed at the end; also removes those of dead builds. */
export async function staging(directory: string): Promise<Staging> {
  await refuseForeign(directory);
  const prefix = `.${basename(directory)}.build-`;
  const parent = dirname(directory);
  for (const name of await readdir(parent)) {
    if (name.startsWith(prefix) && !(await isAlive(name.slice(prefix.length).split('-')[0] ?? ''))) {
      await rm(join(parent, name), { recursive: true, force: true });
    }
  }
  const path = join(parent, `${prefix}${process.pid}-${randomBytes(4).toString('hex')}`);
  await mkdir(path, { mode: 0o700 });
  const image = join(path, 'image');
  await mkdir(image);
  return { path, image, [Symbol.asyncDispose]: async () => rm(path, { recursive: true, force: true }) };
}

/** Moves the finished image to its place. Machines that run from the old one keep its files open. */
export async function publish(image: string, directory: string): Promise<void> {
  const old = `${image}.old`;
  try {
    await rename(directory, old);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
    await rename(image, directory);
    return;
  }
  try {
    await rename(image, directory);
  } catch (error) {
    await rename(old, directory);
    throw error;
  }
}

/** The destination is replaced as a whole: never a directory that holds something else. */
async function refuseForeign(directory: string): Promise<void> {
  let names: readonly string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return;
    throw error;
  }
  if (names.length === 0 || names.includes(MANIFEST_FILE)) return;
  throw new InfraletError('FAILED_PRECONDITION', `${directory} exists and is not a guest image`, {
    hint: 'choose another directory (guestImageDir) or empty it',
  });
}

async function isAlive(pid: string): Promise<boolean> {
  try {
    await stat(`/proc/${pid}`);
    return true;
  } catch {
    return false;
  }
}
