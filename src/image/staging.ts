/** Blobs on their way into the store: received, hashed, synced, and only then moved in, all or none. */
import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import { type Digest, parseDigest } from '../base/ids.ts';
import type { BlobStore } from './blob-store.ts';
import type { Descriptor } from './manifest.ts';

/** A file being written; `digest` and `size` are those of the bytes so far. */
export class Upload implements AsyncDisposable {
  readonly path: string;
  readonly #file: FileHandle;
  readonly #hash: Hash = createHash('sha256');
  #size = 0;

  constructor(path: string, file: FileHandle) {
    this.path = path;
    this.#file = file;
  }

  get size(): number {
    return this.#size;
  }

  /** Waits for the disk before it takes more: back-pressure for whoever sends. */
  async write(chunk: Uint8Array): Promise<void> {
    this.#hash.update(chunk);
    this.#size += chunk.length;
    let rest = chunk;
    while (rest.length > 0) {
      const { bytesWritten } = await this.#file.write(rest);
      rest = rest.subarray(bytesWritten);
    }
  }

  /** Ends the file, durable; returns its digest. */
  async finish(): Promise<Digest> {
    await this.#file.sync();
    await this.#file.close();
    return parseDigest(`sha256:${this.#hash.digest('hex')}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close().catch(() => undefined);
    await rm(this.path, { force: true });
  }
}

export class Staging implements AsyncDisposable {
  readonly directory: string;
  readonly #store: BlobStore;
  readonly #staged = new Map<Digest, number>();
  readonly #holds = new DisposableStack();
  #uploads = 0;

  constructor(store: BlobStore, directory: string) {
    this.#store = store;
    this.directory = directory;
  }

  /** Bytes of a blob that is here or in the store already; in the store it stays until this staging ends. */
  reuse(digest: Digest): number | undefined {
    const size = this.#staged.get(digest) ?? this.#store.size(digest);
    if (size !== undefined) this.#holds.use(this.#store.hold([digest]));
    return size;
  }

  async upload(): Promise<Upload> {
    this.#uploads += 1;
    const path = join(this.directory, `upload-${this.#uploads}`);
    return new Upload(path, await open(path, 'wx', 0o600));
  }

  /** Ends an upload that must have this digest. Throws DATA_LOSS when it has another. */
  async keep(upload: Upload, expected: Digest): Promise<void> {
    const { size } = upload;
    const actual = await upload.finish();
    if (actual !== expected) {
      throw new InfraletError('DATA_LOSS', `a blob that should be ${expected} is ${actual} (${size} bytes)`);
    }
    await rename(upload.path, this.#path(expected));
    this.#staged.set(expected, size);
  }

  /** Takes a blob from memory. */
  async put(digest: Digest, data: Uint8Array): Promise<void> {
    await using upload = await this.upload();
    await upload.write(data);
    await this.keep(upload, digest);
  }

  /** A small blob's bytes, from here or from the store. */
  async read(blob: { readonly digest: Digest; readonly size?: number }, maxBytes: number): Promise<Uint8Array> {
    const size = this.reuse(blob.digest);
    if (size === undefined) throw new InfraletError('DATA_LOSS', `the blob ${blob.digest} did not arrive`);
    if (size > maxBytes) {
      throw new InfraletError('DATA_LOSS', `the blob ${blob.digest} has ${size} bytes, more than ${maxBytes}`);
    }
    return await readFile(this.#staged.has(blob.digest) ? this.#path(blob.digest) : this.#store.path(blob.digest));
  }

  /**
   * Checks that all blobs are there with their sizes, moves them into the store and makes that durable.
   * The returned hold keeps them; without anybody else's hold, disposing of it deletes them again.
   */
  async commit(blobs: readonly Descriptor[]): Promise<Disposable> {
    for (const blob of blobs) {
      const size = this.reuse(blob.digest);
      if (size === undefined) throw new InfraletError('DATA_LOSS', `the blob ${blob.digest} did not arrive`);
      if (size !== blob.size) {
        throw new InfraletError(
          'DATA_LOSS',
          `the blob ${blob.digest} has ${size} bytes where its manifest says ${blob.size}`,
        );
      }
    }
    const hold = this.#store.hold(blobs.map((blob) => blob.digest));
    try {
      for (const { digest, size } of blobs)
        if (this.#staged.has(digest)) this.#store.admit(digest, size, this.#path(digest));
      await this.#store.sync();
    } catch (error) {
      hold[Symbol.dispose]();
      throw error;
    }
    return hold;
  }

  #path(digest: Digest): string {
    return join(this.directory, digest.slice('sha256:'.length));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#holds.dispose();
    await rm(this.directory, { recursive: true, force: true });
  }
}
