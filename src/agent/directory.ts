/**
 * Directories held open by descriptor, so that paths cannot leave a root.
 *
 * Containers may write into the trees that the daemon fills, and may plant symlinks or swap directories at any moment. A
 * check of a path followed by its use would lose that race. Node has no openat(2), but on Linux `/proc/self/fd/N/name`
 * is one: the kernel goes from the open directory itself, not from its path. So every path is walked component by
 * component, each directory opened with O_NOFOLLOW relative to the one before, and every operation names one component
 * of an open directory. Components are never "", ".", ".." and hold no "/" or NUL. Nothing is ever resolved by a path.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  type Stats,
  symlinkSync,
  unlinkSync,
} from 'node:fs';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { LIMITS } from './options.ts';

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const MAX_COMPONENT = 255;

/** The components of a relative path, checked. The empty path has none. */
export function components(path: string): readonly string[] {
  if (Buffer.byteLength(path) > LIMITS.pathBytes) throw badPath(path, 'it is too long');
  const parts = path.split('/').filter((part) => part !== '');
  if (path.startsWith('/')) throw badPath(path, 'it is absolute');
  if (path.includes('\0')) throw badPath(path, 'it holds a NUL');
  if (parts.length > LIMITS.pathDepth) throw badPath(path, 'it is too deep');
  for (const part of parts) {
    if (part === '.' || part === '..') throw badPath(path, 'it leaves its root');
    if (Buffer.byteLength(part) > MAX_COMPONENT) throw badPath(path, 'a component is too long');
  }
  return parts;
}

export class Directory implements Disposable {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** A root of the agent: trusted as a path, made when it is missing. */
  static root(path: string): Directory {
    mkdirSync(path, { recursive: true, mode: 0o755 });
    return new Directory(openSync(path, constants.O_RDONLY | constants.O_DIRECTORY));
  }

  /** Walks down from a root; `make` makes what is missing, 0755. */
  static walk(root: string, parts: readonly string[], make: boolean): Directory {
    let current = Directory.root(root);
    for (const part of parts) {
      const previous = current;
      try {
        current = previous.enter(part, make);
      } finally {
        previous[Symbol.dispose]();
      }
    }
    return current;
  }

  enter(name: string, make: boolean): Directory {
    try {
      return new Directory(openSync(this.at(name), DIRECTORY));
    } catch (error) {
      if (make && hasErrno(error, 'ENOENT')) {
        this.#make(name);
        return this.enter(name, false);
      }
      if (hasErrno(error, 'ELOOP', 'ENOTDIR')) {
        throw new InfraletError('FAILED_PRECONDITION', `${JSON.stringify(name)} is not a directory`, { cause: error });
      }
      throw error;
    }
  }

  #make(name: string): void {
    try {
      mkdirSync(this.at(name), { mode: 0o755 });
    } catch (error) {
      if (!hasErrno(error, 'EEXIST')) throw error;
    }
  }

  /** A path for one operation that does not follow a symlink in its last component. */
  at(name: string): string {
    return `/proc/self/fd/${this.#fd}/${name}`;
  }

  get fd(): number {
    return this.#fd;
  }

  /** Opens without following and without waiting for the other end of a FIFO. */
  open(name: string, flags: number, mode?: number): number {
    return openSync(this.at(name), flags | constants.O_NOFOLLOW | constants.O_NONBLOCK, mode);
  }

  stat(name: string): Stats | undefined {
    return lstatSync(this.at(name), { throwIfNoEntry: false });
  }

  mkdir(name: string): void {
    mkdirSync(this.at(name), { mode: 0o700 });
  }

  symlink(name: string, target: string): void {
    symlinkSync(target, this.at(name));
  }

  readlink(name: string): string {
    return readlinkSync(this.at(name));
  }

  rename(from: string, to: string, target: Directory = this): void {
    renameSync(this.at(from), target.at(to));
  }

  names(): readonly string[] {
    return readdirSync(`/proc/self/fd/${this.#fd}`);
  }

  /** Removes a tree; succeeds when there is none. Symlinks are removed, not followed. */
  remove(name: string): void {
    const stat = this.stat(name);
    if (!stat) return;
    if (!stat.isDirectory()) {
      unlinkSync(this.at(name));
      return;
    }
    using inner = this.enter(name, false);
    for (const child of inner.names()) inner.remove(child);
    rmdirSync(this.at(name));
  }

  get mtimeMs(): number {
    return fstatSync(this.#fd).mtimeMs;
  }

  /** Identity of the directory, to see whether a path still leads to it. */
  get inode(): number {
    return fstatSync(this.#fd).ino;
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

function badPath(path: string, why: string): InfraletError {
  return new InfraletError('INVALID_ARGUMENT', `the path ${JSON.stringify(path.slice(0, 200))} is refused: ${why}`);
}
