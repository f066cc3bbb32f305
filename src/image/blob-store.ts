/**
 * Blobs by digest, shared between images: `blobs/sha256/<hex>` as in an OCI layout.
 *
 * Invariants: a file in `blobs/` is whole, has its digest, and is on disk; every such file is held by at least one image,
 * grant or pull, and the last release deletes it. Deciding and renaming happen without an await in between, so that a pull that
 * found a blob and a removal of its last image cannot miss each other.
 */
import { randomBytes } from 'node:crypto';
import { renameSync } from 'node:fs';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ensureDirectory, syncDirectory } from '../base/files.ts';
import { type Digest, parseDigest } from '../base/ids.ts';
import type { Logger } from '../telemetry/log.ts';
import { Staging } from './staging.ts';

export class BlobStore implements AsyncDisposable {
  readonly root: string;
  readonly #log: Logger;
  /** Sizes of the files in `blobs/`. */
  readonly #present = new Map<Digest, number>();
  readonly #holds = new Map<Digest, number>();
  readonly #deletions = new Set<Promise<void>>();

  private constructor(root: string, log: Logger) {
    this.root = root;
    this.#log = log;
  }

  /** Opens the store below `root`; what a killed daemon was fetching is deleted. Call `collect` once all holds are taken. */
  static async open(root: string, log: Logger): Promise<BlobStore> {
    const store = new BlobStore(root, log);
    await rm(store.#ingest, { recursive: true, force: true });
    await ensureDirectory(store.#ingest, 0o700);
    await ensureDirectory(store.#blobs, 0o700);
    for (const name of await readdir(store.#blobs)) {
      const path = join(store.#blobs, name);
      const info = await stat(path);
      if (/^[0-9a-f]{64}$/.test(name) && info.isFile()) store.#present.set(parseDigest(`sha256:${name}`), info.size);
      else await rm(path, { recursive: true, force: true });
    }
    return store;
  }

  get #blobs(): string {
    return join(this.root, 'blobs', 'sha256');
  }

  get #ingest(): string {
    return join(this.root, 'ingest');
  }

  path(digest: Digest): string {
    return join(this.#blobs, digest.slice('sha256:'.length));
  }

  /** Bytes of a blob, undefined where the store has it not. */
  size(digest: Digest): number | undefined {
    return this.#present.get(digest);
  }

  /** Keeps the blobs, also those still to come, until disposed of. */
  hold(digests: Iterable<Digest>): Disposable {
    const held = [...digests];
    for (const digest of held) this.#holds.set(digest, (this.#holds.get(digest) ?? 0) + 1);
    let released = false;
    return {
      [Symbol.dispose]: () => {
        if (released) return;
        released = true;
        for (const digest of held) this.#release(digest);
      },
    };
  }

  /** Deletes what nobody holds; for the start, when a kill may have left such blobs. */
  collect(): readonly Digest[] {
    const loose = [...this.#present.keys()].filter((digest) => !this.#holds.has(digest));
    for (const digest of loose) this.#discard(digest);
    return loose;
  }

  /** A directory of its own for one pull or load, in the same file system, deleted when disposed of. */
  async stage(): Promise<Staging> {
    const directory = join(this.#ingest, randomBytes(8).toString('hex'));
    await mkdir(directory, { mode: 0o700 });
    return new Staging(this, directory);
  }

  /** Moves a finished file in. The caller holds its digest and calls `sync` before anybody relies on it. */
  admit(digest: Digest, size: number, file: string): void {
    if (this.#present.has(digest)) return;
    renameSync(file, this.path(digest));
    this.#present.set(digest, size);
  }

  async sync(): Promise<void> {
    await syncDirectory(this.#blobs);
  }

  #release(digest: Digest): void {
    const left = (this.#holds.get(digest) ?? 1) - 1;
    if (left > 0) {
      this.#holds.set(digest, left);
      return;
    }
    this.#holds.delete(digest);
    if (this.#present.has(digest)) this.#discard(digest);
  }

  /** Renamed away at once, deleted in the background: unlinking gigabytes takes a while, and readers keep their open file. */
  #discard(digest: Digest): void {
    this.#present.delete(digest);
    const doomed = join(this.#ingest, `deleted-${randomBytes(8).toString('hex')}`);
    renameSync(this.path(digest), doomed);
    const deletion = rm(doomed, { force: true })
      .catch((error: unknown) => this.#log.warn('a deleted blob stays until the next start', { digest, error }))
      .finally(() => this.#deletions.delete(deletion));
    this.#deletions.add(deletion);
  }

  /** Resolves when the space of all deleted blobs is free. */
  async settled(): Promise<void> {
    await Promise.all(this.#deletions);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.settled();
  }
}
