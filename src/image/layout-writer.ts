/** Writes OCI layout directories: the demo image, and the images of the tests. Equal inputs give equal digests. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { gzip, zstdCompress } from 'node:zlib';
import { pack } from 'tar-stream';
import type { Digest } from '../base/ids.ts';
import { type Descriptor, digestOf, OCI_INDEX, OCI_MANIFEST, type Platform } from './manifest.ts';

export type LayerEntry =
  | { readonly type: 'file'; readonly path: string; readonly data: Uint8Array; readonly mode: number }
  | { readonly type: 'directory'; readonly path: string; readonly mode: number }
  | { readonly type: 'symlink'; readonly path: string; readonly target: string };

export interface Layer extends Descriptor {
  /** Digest of the tar before compression. */
  readonly diffId: Digest;
}

export interface ImageSpec {
  readonly layers: readonly Layer[];
  readonly platform: Platform;
  /** The configuration's "config": User, Env, Cmd, Entrypoint, WorkingDir… */
  readonly config: Readonly<Record<string, unknown>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface IndexMember extends Descriptor {
  readonly platform?: Platform;
  readonly annotations?: Readonly<Record<string, string>>;
}

export type Compression = 'none' | 'gzip' | 'zstd';

const COMPRESSORS: Readonly<Record<Compression, (data: Uint8Array) => Promise<Uint8Array>>> = {
  none: (data) => Promise.resolve(data),
  gzip: promisify(gzip),
  zstd: promisify(zstdCompress),
};
const LAYER_TYPES: Readonly<Record<Compression, string>> = {
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
};

export class LayoutWriter {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async create(directory: string): Promise<LayoutWriter> {
    await mkdir(join(directory, 'blobs', 'sha256'), { recursive: true });
    await writeFile(join(directory, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
    return new LayoutWriter(directory);
  }

  async layer(entries: readonly LayerEntry[], compression: Compression): Promise<Layer> {
    const tar = await tarball(entries);
    const blob = await this.#blob(await COMPRESSORS[compression](tar), LAYER_TYPES[compression]);
    return { ...blob, diffId: digestOf(tar) };
  }

  /** Adds configuration and manifest; the configuration's digest is the image id. */
  async image(spec: ImageSpec): Promise<{ readonly manifest: Descriptor; readonly config: Descriptor }> {
    const config = await this.#json('application/vnd.oci.image.config.v1+json', {
      ...spec.platform,
      created: '1970-01-01T00:00:00Z',
      config: spec.config,
      rootfs: { type: 'layers', diff_ids: spec.layers.map((layer) => layer.diffId) },
    });
    const manifest = await this.#json(OCI_MANIFEST, {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config,
      layers: spec.layers.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
      ...(spec.annotations ? { annotations: spec.annotations } : {}),
    });
    return { manifest, config };
  }

  async index(members: readonly IndexMember[]): Promise<Descriptor> {
    return await this.#json(OCI_INDEX, { schemaVersion: 2, mediaType: OCI_INDEX, manifests: members });
  }

  /** Writes the layout's own index: what it holds, under which names. */
  async finish(members: readonly IndexMember[]): Promise<void> {
    await writeFile(join(this.directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: members }));
  }

  async #json(mediaType: string, value: unknown): Promise<Descriptor> {
    return await this.#blob(Buffer.from(JSON.stringify(value)), mediaType);
  }

  async #blob(data: Uint8Array, mediaType: string): Promise<Descriptor> {
    const digest = digestOf(data);
    await writeFile(join(this.directory, 'blobs', 'sha256', digest.slice('sha256:'.length)), data);
    return { mediaType, digest, size: data.length };
  }
}

async function tarball(entries: readonly LayerEntry[]): Promise<Uint8Array> {
  const tar = pack();
  const collecting = buffer(tar);
  for (const entry of entries) {
    const header = { name: entry.path, mtime: new Date(0), uid: 0, gid: 0 };
    if (entry.type === 'file') tar.entry({ ...header, mode: entry.mode }, Buffer.from(entry.data));
    else if (entry.type === 'directory') tar.entry({ ...header, type: 'directory', mode: entry.mode });
    else tar.entry({ ...header, type: 'symlink', linkname: entry.target });
  }
  tar.finalize();
  return await collecting;
}
