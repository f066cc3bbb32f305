/**
 * The durable index: which images there are, of which blobs, under which names. SQLite is the truth, memory its view.
 * A row is written only when its blobs are durable, and deleted before they go.
 */
import { DatabaseSync } from 'node:sqlite';
import { z } from 'zod';
import { type Digest, parseDigest } from '../base/ids.ts';
import type { Descriptor } from './manifest.ts';

export interface StoredImage {
  readonly id: Digest;
  readonly manifest: Digest;
  readonly mediaType: string;
  /** As in the configuration: "1000:1000", "www-data", "". */
  readonly user: string;
  readonly annotations: Readonly<Record<string, string>>;
  /** Manifest, configuration and layers, each once. */
  readonly blobs: readonly Descriptor[];
  /** Normalised name ("…:tag" or "…@sha256:…") → digest of what the registry had under it, an index where it was one. */
  readonly references: ReadonlyMap<string, Digest>;
}

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS image (
    id TEXT PRIMARY KEY, manifest TEXT NOT NULL, media_type TEXT NOT NULL, user TEXT NOT NULL, annotations TEXT NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS image_blob (
    image TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE, position INTEGER NOT NULL,
    digest TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL, PRIMARY KEY (image, position)
  ) STRICT;
  CREATE TABLE IF NOT EXISTS reference (
    name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE, target TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS reference_image ON reference(image);
`;

const digest = z.string().transform((text) => parseDigest(text));
const imageRow = z.object({
  id: digest,
  manifest: digest,
  media_type: z.string(),
  user: z.string(),
  annotations: z.string().transform((text) => z.record(z.string(), z.string()).parse(JSON.parse(text))),
});
const blobRow = z.object({ image: digest, digest, size: z.number(), media_type: z.string() });
const referenceRow = z.object({ name: z.string(), image: digest, target: digest });

export class ImageIndex implements Disposable {
  readonly #database: DatabaseSync;
  readonly #images = new Map<Digest, StoredImage>();
  /** Name → image id. */
  readonly #names = new Map<string, Digest>();

  constructor(path: string) {
    this.#database = new DatabaseSync(path, { enableForeignKeyConstraints: true });
    this.#database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
    this.#database.exec(SCHEMA);
    this.#load();
  }

  get(id: Digest): StoredImage | undefined {
    return this.#images.get(id);
  }

  byName(name: string): StoredImage | undefined {
    const id = this.#names.get(name);
    return id === undefined ? undefined : this.#images.get(id);
  }

  all(): readonly StoredImage[] {
    return [...this.#images.values()];
  }

  /** Writes the image under its names; a name that belonged to another image moves over. */
  put(image: StoredImage): void {
    const previous = this.#images.get(image.id);
    const references = new Map([...(previous?.references ?? []), ...image.references]);
    this.#transaction(() => {
      this.#database.prepare('DELETE FROM image WHERE id = ?').run(image.id);
      this.#database
        .prepare('INSERT INTO image (id, manifest, media_type, user, annotations) VALUES (?, ?, ?, ?, ?)')
        .run(image.id, image.manifest, image.mediaType, image.user, JSON.stringify(image.annotations));
      const blob = this.#database.prepare(
        'INSERT INTO image_blob (image, position, digest, size, media_type) VALUES (?, ?, ?, ?, ?)',
      );
      for (const [position, { digest, size, mediaType }] of image.blobs.entries()) {
        blob.run(image.id, position, digest, size, mediaType);
      }
      const reference = this.#database.prepare(
        'INSERT OR REPLACE INTO reference (name, image, target) VALUES (?, ?, ?)',
      );
      for (const [name, target] of references) reference.run(name, image.id, target);
    });
    this.#remember({ ...image, references });
  }

  delete(id: Digest): void {
    this.#transaction(() => this.#database.prepare('DELETE FROM image WHERE id = ?').run(id));
    for (const name of this.#images.get(id)?.references.keys() ?? []) this.#names.delete(name);
    this.#images.delete(id);
  }

  #remember(image: StoredImage): void {
    for (const name of image.references.keys()) {
      const owner = this.#names.get(name);
      const other = owner === undefined || owner === image.id ? undefined : this.#images.get(owner);
      if (other) {
        const references = new Map([...other.references].filter(([taken]) => taken !== name));
        this.#images.set(other.id, { ...other, references });
      }
      this.#names.set(name, image.id);
    }
    this.#images.set(image.id, image);
  }

  #load(): void {
    const blobs = Map.groupBy(
      blobRow.array().parse(this.#database.prepare('SELECT * FROM image_blob ORDER BY image, position').all()),
      (row) => row.image,
    );
    const references = Map.groupBy(
      referenceRow.array().parse(this.#database.prepare('SELECT * FROM reference ORDER BY name').all()),
      (row) => row.image,
    );
    for (const row of imageRow.array().parse(this.#database.prepare('SELECT * FROM image ORDER BY rowid').all())) {
      this.#remember({
        id: row.id,
        manifest: row.manifest,
        mediaType: row.media_type,
        user: row.user,
        annotations: row.annotations,
        blobs: (blobs.get(row.id) ?? []).map(({ digest, size, media_type }) => ({
          digest,
          size,
          mediaType: media_type,
        })),
        references: new Map((references.get(row.id) ?? []).map(({ name, target }) => [name, target])),
      });
    }
  }

  #transaction(work: () => void): void {
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      work();
      this.#database.exec('COMMIT');
    } catch (error) {
      this.#database.exec('ROLLBACK');
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}
