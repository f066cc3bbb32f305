/** The images as the CRI names and shows them: a view of the index, plus the holds that keep their blobs. */
import type { Digest } from '../base/ids.ts';
import type { BlobStore } from './blob-store.ts';
import type { ImageIndex, StoredImage } from './image-index.ts';
import { splitUser } from './manifest.ts';
import { normalisedName } from './reference.ts';
import type { ImageRecord } from './service.ts';

const SHORT_ID = /^(?:sha256:)?([0-9a-f]{12,64})$/;

export class Catalogue {
  readonly #index: ImageIndex;
  readonly #blobs: BlobStore;
  readonly #pinned: readonly RegExp[];
  readonly #holds = new Map<Digest, Disposable>();
  #records: readonly ImageRecord[] | undefined;

  /** `pinned`: names, where "*" stands for anything. */
  constructor(index: ImageIndex, blobs: BlobStore, pinned: readonly string[]) {
    this.#index = index;
    this.#blobs = blobs;
    this.#pinned = pinned.map(namePattern);
    for (const image of index.all()) this.#hold(image);
  }

  list(): readonly ImageRecord[] {
    this.#records ??= this.#index.all().map((image) => this.record(image));
    return this.#records;
  }

  /** By name, id, or a prefix of the id (12 digits at least) that fits one image only. */
  find(reference: string): StoredImage | undefined {
    const named = this.#index.byName(normalisedName(reference) ?? reference);
    if (named) return named;
    const prefix = SHORT_ID.exec(reference)?.[1];
    if (prefix === undefined) return undefined;
    const [first, ...others] = this.#index.all().filter((image) => image.id.startsWith(`sha256:${prefix}`));
    return others.length === 0 ? first : undefined;
  }

  /** The image that a registry's answer means: by what stood under one of its names, or by its own manifest. */
  byTarget(target: Digest): StoredImage | undefined {
    return this.#index
      .all()
      .find((image) => image.manifest === target || image.references.values().some((digest) => digest === target));
  }

  get(id: Digest): StoredImage | undefined {
    return this.#index.get(id);
  }

  /** Adds an image whose blobs are durable and held by the caller until this returns. */
  put(image: StoredImage): StoredImage {
    this.#index.put(image);
    this.#hold(image);
    this.#records = undefined;
    return this.#index.get(image.id) ?? image;
  }

  /** Forgets an image with all its names; its blobs go unless somebody else holds them. */
  delete(id: Digest): void {
    this.#index.delete(id);
    this.#records = undefined;
    this.#holds.get(id)?.[Symbol.dispose]();
    this.#holds.delete(id);
  }

  record(image: StoredImage): ImageRecord {
    const names = [...image.references.keys()];
    return {
      id: image.id,
      manifest: image.manifest,
      repoTags: names.filter((name) => !name.includes('@')),
      repoDigests: names.filter((name) => name.includes('@')),
      size: image.blobs.reduce((sum, blob) => sum + blob.size, 0),
      ...splitUser(image.user),
      pinned: names.some((name) => this.#pinned.some((pattern) => pattern.test(name))),
      annotations: image.annotations,
    };
  }

  #hold(image: StoredImage): void {
    const before = this.#holds.get(image.id);
    this.#holds.set(image.id, this.#blobs.hold(image.blobs.map((blob) => blob.digest)));
    before?.[Symbol.dispose]();
  }
}

function namePattern(pattern: string): RegExp {
  const name = pattern.includes('*') ? pattern : (normalisedName(pattern) ?? pattern);
  return new RegExp(
    `^${name
      .split('*')
      .map((part) => RegExp.escape(part))
      .join('.*')}$`,
  );
}
