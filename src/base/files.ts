/** Files that survive a power cut: written beside, synced, renamed, directory synced. */
import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname, isAbsolute, normalize, relative, resolve, sep } from 'node:path';
import { hasErrno, InfraletError } from './errors.ts';

/** Replaces `path` with `data` atomically; a reader sees the old content or the new, never a part. */
export async function writeFileAtomic(path: string, data: string | Uint8Array, mode = 0o644): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(dirname(path));
}

export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** Makes `path` with `mode`, parents included; one that exists keeps the mode it has. */
export async function ensureDirectory(path: string, mode = 0o755): Promise<void> {
  await mkdir(path, { recursive: true, mode });
}

/** Joins `name` below `root` and refuses everything that would leave it. Pure: symlinks are the caller's concern. */
export function confine(root: string, name: string): string {
  const clean = normalize(name);
  const inside = resolve(root, isAbsolute(clean) ? `.${clean}` : clean);
  const rest = relative(root, inside);
  if (name.includes('\0') || rest === '..' || rest.startsWith(`..${sep}`)) {
    throw new InfraletError('INVALID_ARGUMENT', `the path ${JSON.stringify(name)} leaves its root`);
  }
  return inside;
}

/** False when nothing has that name; everything else that keeps it from being looked at is thrown. */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return false;
    throw error;
  }
}
