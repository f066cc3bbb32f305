/**
 * What containers have written into their roots: the blocks and inodes of the upper directories of their overlays. Looked
 * at one after the other, in slices, and seldom: a walk costs a stat per file, and the machine's processor is the pod's.
 */
import { lstatSync, opendirSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { LIMITS } from './options.ts';

export interface Layer {
  readonly bytes: number;
  readonly inodes: number;
  /** When it was looked at, milliseconds of the monotonic clock. */
  readonly at: number;
}

/** lstat(2) counts blocks of 512 bytes, whatever the file system's block size. */
const BLOCK = 512;
/** A walk takes at most this share of the time. */
const SHARE = 1 / 50;

interface Known {
  readonly layer: Layer;
  /** How long the walk took. */
  readonly tookMs: number;
}

export class Layers {
  readonly #known = new Map<string, Known>();
  #walk: Promise<void> | undefined;

  get(id: string): Layer | undefined {
    return this.#known.get(id)?.layer;
  }

  /** Walks through those that are due, unless a walk is under way. Resolves when it is done; forgets all others. */
  async look(directories: ReadonlyMap<string, string>, everyMs: number): Promise<void> {
    for (const id of this.#known.keys()) if (!directories.has(id)) this.#known.delete(id);
    this.#walk ??= this.#lookAt(directories, everyMs).finally(() => {
      this.#walk = undefined;
    });
    await this.#walk;
  }

  async #lookAt(directories: ReadonlyMap<string, string>, everyMs: number): Promise<void> {
    for (const [id, directory] of directories) {
      const started = performance.now();
      const known = this.#known.get(id);
      if (known && started < known.layer.at + Math.max(everyMs, known.tookMs / SHARE)) continue;
      const { bytes, inodes } = await walk(directory);
      const at = performance.now();
      this.#known.set(id, { layer: { bytes, inodes, at }, tookMs: at - started });
    }
  }
}

/** As du(1) counts: a file with several names once. What disappears meanwhile does not count. */
async function walk(directory: string): Promise<{ readonly bytes: number; readonly inodes: number }> {
  const several = new Set<number>();
  let bytes = 0;
  let inodes = 0;
  /** True for a directory. */
  const count = (path: string): boolean => {
    const info = lstatSync(path, { throwIfNoEntry: false });
    if (!info || (info.nlink > 1 && !info.isDirectory() && several.has(info.ino))) return false;
    if (info.nlink > 1 && !info.isDirectory() && several.size < LIMITS.layerEntries) several.add(info.ino);
    bytes += info.blocks * BLOCK;
    inodes += 1;
    return info.isDirectory();
  };
  const left = count(directory) ? [directory] : [];
  let seen = 0;
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    for (const name of names(next)) {
      seen += 1;
      // The container chooses how much there is: beyond the limit the figure is a lower bound.
      if (seen > LIMITS.layerEntries) return { bytes, inodes };
      if (seen % LIMITS.layerSlice === 0) await turn();
      const path = join(next, name);
      if (count(path)) left.push(path);
    }
  }
  return { bytes, inodes };
}

function* names(directory: string): Generator<string> {
  try {
    using open = opendirSync(directory);
    for (let entry = open.readSync(); entry; entry = open.readSync()) yield entry.name;
  } catch {
    // Removed meanwhile.
  }
}
