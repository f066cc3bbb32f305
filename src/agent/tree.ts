/** Writes one tree below a root, entry by entry, in the order in which the daemon sends them. */

import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  futimesSync,
  lchownSync,
  lutimesSync,
  readSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { components, Directory } from './directory.ts';
import { LIMITS } from './options.ts';

export interface TreeTarget {
  /** Absolute path of the root. */
  readonly root: string;
  readonly path: string;
  readonly manner: Manner;
}

/**
 * replace: the tree is built beside and exchanged with the old one. add: entries are put into what exists. sync: as add,
 * and what the tree does not have goes. keep: only what is missing is made.
 */
export type Manner = 'replace' | 'add' | 'sync' | 'keep';

export interface TreeEntry {
  readonly path: string;
  readonly kind: 'file' | 'directory' | 'symlink';
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeMs: number;
  readonly size: number;
  readonly link: string;
}

interface OpenFile {
  readonly entry: TreeEntry;
  readonly fd: number;
  /** Belongs to the writer. */
  readonly directory: Directory;
  readonly temporary: string;
  readonly name: string;
  left: number;
}

/** Beside the target while a tree or a file is made; the dot and the random part keep it out of everybody's way. */
function temporaryName(): string {
  return `.infralet-${randomBytes(8).toString('hex')}`;
}

/**
 * With `replace` the tree is built under a temporary name beside the target, then exchanged by renames; a reader finds
 * the old tree or the new one (for directories there is an instant with neither, since rename(2) cannot exchange).
 * Without it, entries are put into what exists: files and symlinks each by one rename over the old one. With `sync`, what
 * the tree does not have is removed at the end, and a target that is one file is overwritten: containers have it mounted.
 */
export class TreeWriter implements Disposable {
  readonly #target: TreeTarget;
  readonly #parent: Directory;
  /** Name of the target in its parent. */
  readonly #name: string;
  /** Where entries go: the target's own name, or a temporary one. */
  readonly #built: string;
  readonly #directories: { readonly parts: readonly string[]; readonly mtimeMs: number }[] = [];
  /** With `sync`: names in each directory of the tree. */
  readonly #names = new Map<string, Set<string>>();
  #file: OpenFile | undefined;
  /** Where the last entry went: the next one most often goes there, too. */
  #last: { readonly path: string; readonly directory: Directory } | undefined;
  #entries = 0;
  #bytes = 0;

  constructor(target: TreeTarget) {
    const parts = components(target.path);
    const name = parts.at(-1);
    if (name === undefined) throw new InfraletError('INVALID_ARGUMENT', 'the target must be below the root');
    this.#target = target;
    this.#name = name;
    this.#built = target.manner === 'replace' ? temporaryName() : name;
    this.#parent = Directory.walk(target.root, parts.slice(0, -1), true);
  }

  begin(entry: TreeEntry): void {
    this.#finishFile();
    this.#count(entry);
    const parts = components(entry.path);
    const name = parts.at(-1) ?? this.#built;
    this.#noteName(parts, entry);
    const directory = parts.length === 0 ? this.#parent : this.#open(parts.slice(0, -1));
    if (entry.kind === 'directory') this.#directory(directory, name, parts, entry);
    else if (entry.kind === 'symlink') this.#symlink(directory, name, entry);
    else {
      const temporary = temporaryName();
      const fd = directory.open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
      this.#file = { entry, fd, directory, temporary, name, left: entry.size };
      if (entry.size === 0) this.#finishFile();
    }
  }

  /** As `#enter`, open until another one is asked for. */
  #open(parts: readonly string[]): Directory {
    const path = parts.join('/');
    if (this.#last?.path === path) return this.#last.directory;
    this.#leave();
    const directory = this.#enter(parts);
    this.#last = { path, directory };
    return directory;
  }

  #leave(): void {
    this.#last?.directory[Symbol.dispose]();
    this.#last = undefined;
  }

  data(bytes: Buffer): void {
    const file = this.#file;
    if (!file || bytes.length > file.left) {
      throw new InfraletError('INVALID_ARGUMENT', 'more bytes than the file was announced with');
    }
    for (let at = 0; at < bytes.length; ) at += writeSync(file.fd, bytes, at);
    file.left -= bytes.length;
    if (file.left === 0) this.#finishFile();
  }

  /** Puts the tree in its place; returns the target's absolute path. */
  commit(): string {
    this.#finishFile();
    this.#prune();
    // Children have changed the directories' times: set them last, the innermost first.
    for (const { parts, mtimeMs } of this.#directories.reverse()) {
      using directory = this.#enter(parts);
      futimesSync(directory.fd, mtimeMs / 1000, mtimeMs / 1000);
    }
    if (this.#target.manner === 'replace') this.#exchange();
    return join(this.#target.root, this.#target.path);
  }

  #exchange(): void {
    const built = this.#parent.stat(this.#built);
    if (!built) {
      // An empty tree replaces whatever there was.
      this.#parent.remove(this.#name);
      return;
    }
    const old = this.#parent.stat(this.#name);
    if (!old || (!old.isDirectory() && !built.isDirectory())) {
      this.#parent.rename(this.#built, this.#name);
      return;
    }
    const away = temporaryName();
    this.#parent.rename(this.#name, away);
    this.#parent.rename(this.#built, this.#name);
    this.#parent.remove(away);
  }

  #directory(directory: Directory, name: string, parts: readonly string[], entry: TreeEntry): void {
    if (this.#target.manner === 'keep' && directory.stat(name)) return;
    try {
      directory.mkdir(name);
    } catch (error) {
      if (!hasErrno(error, 'EEXIST')) throw error;
    }
    using made = directory.enter(name, false);
    fchownSync(made.fd, entry.uid, entry.gid);
    fchmodSync(made.fd, entry.mode);
    this.#directories.push({ parts, mtimeMs: entry.mtimeMs });
  }

  /** The directory of an entry's children; directories that were not announced are made. */
  #enter(parts: readonly string[]): Directory {
    let current = this.#parent.enter(this.#built, true);
    for (const part of parts) {
      const previous = current;
      try {
        current = previous.enter(part, true);
      } finally {
        previous[Symbol.dispose]();
      }
    }
    return current;
  }

  #finishFile(): void {
    const file = this.#file;
    if (!file) return;
    this.#file = undefined;
    try {
      if (file.left > 0) {
        throw new InfraletError(
          'INVALID_ARGUMENT',
          `${JSON.stringify(file.entry.path)} ended ${file.left} bytes early`,
        );
      }
      // Owner before mode: chown clears the set-user-id bits.
      fchownSync(file.fd, file.entry.uid, file.entry.gid);
      fchmodSync(file.fd, file.entry.mode);
      futimesSync(file.fd, file.entry.mtimeMs / 1000, file.entry.mtimeMs / 1000);
      this.#place(file);
    } catch (error) {
      file.directory.remove(file.temporary);
      throw error;
    } finally {
      closeSync(file.fd);
    }
  }

  #place({ entry, directory, temporary, name }: OpenFile): void {
    const { manner } = this.#target;
    const stays = manner === 'keep' || (manner === 'sync' && entry.path === '');
    const old = stays ? directory.stat(name) : undefined;
    if (!old) {
      directory.rename(temporary, name);
      return;
    }
    if (manner === 'sync') overwrite(directory, temporary, name, entry);
    directory.remove(temporary);
  }

  #symlink(directory: Directory, name: string, entry: TreeEntry): void {
    if (this.#target.manner !== 'keep' || !directory.stat(name)) symlink(directory, name, entry);
  }

  #noteName(parts: readonly string[], entry: TreeEntry): void {
    if (this.#target.manner !== 'sync') return;
    if (entry.kind === 'directory' && !this.#names.has(entry.path)) this.#names.set(entry.path, new Set());
    const name = parts.at(-1);
    if (name !== undefined) this.#names.get(parts.slice(0, -1).join('/'))?.add(name);
  }

  /** Removes what the tree does not have; also what an agent that was killed left of its own. */
  #prune(): void {
    for (const [path, names] of this.#names) {
      using directory = this.#enter(components(path));
      for (const name of directory.names()) if (!names.has(name)) directory.remove(name);
    }
  }

  #count(entry: TreeEntry): void {
    this.#entries += 1;
    this.#bytes += entry.size;
    if (this.#entries > LIMITS.treeEntries || this.#bytes > LIMITS.treeBytes) {
      throw new InfraletError(
        'RESOURCE_EXHAUSTED',
        `the tree has more than ${LIMITS.treeEntries} entries or ${LIMITS.treeBytes} bytes`,
      );
    }
  }

  /** Removes what was not committed. */
  [Symbol.dispose](): void {
    const file = this.#file;
    this.#file = undefined;
    if (file) {
      closeSync(file.fd);
      file.directory.remove(file.temporary);
    }
    this.#leave();
    if (this.#target.manner === 'replace') this.#parent.remove(this.#built);
    this.#parent[Symbol.dispose]();
  }
}

/** Made beside and renamed over: the `..data` link of a ConfigMap changes in one step. */
function symlink(directory: Directory, name: string, entry: TreeEntry): void {
  const temporary = temporaryName();
  directory.symlink(temporary, entry.link);
  try {
    lchownSync(directory.at(temporary), entry.uid, entry.gid);
    lutimesSync(directory.at(temporary), entry.mtimeMs / 1000, entry.mtimeMs / 1000);
    directory.rename(temporary, name);
  } catch (error) {
    directory.remove(temporary);
    throw error;
  }
}

/** New content for an inode that stays: readers may see it grow, as they would on the node. */
function overwrite(directory: Directory, from: string, to: string, entry: TreeEntry): void {
  const source = directory.open(from, constants.O_RDONLY);
  try {
    const target = directory.open(to, constants.O_WRONLY);
    try {
      const buffer = Buffer.allocUnsafe(Math.min(entry.size, 1024 * 1024));
      let at = 0;
      for (let got = 1; got > 0; at += got) {
        got = readSync(source, buffer, 0, buffer.length, at);
        for (let done = 0; done < got; ) done += writeSync(target, buffer, done, got - done, at + done);
      }
      ftruncateSync(target, at);
      fchownSync(target, entry.uid, entry.gid);
      fchmodSync(target, entry.mode);
      futimesSync(target, entry.mtimeMs / 1000, entry.mtimeMs / 1000);
    } finally {
      closeSync(target);
    }
  } finally {
    closeSync(source);
  }
}
