/** Archives of images: tells OCI from Docker, unpacks the former, names what is in the latter. */
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { extract } from 'tar-stream';
import { z } from 'zod';
import { InfraletError } from '../base/errors.ts';
import { confine } from '../base/files.ts';
import { MAX_MANIFEST_BYTES } from './manifest.ts';

export type Archive =
  | { readonly kind: 'oci' }
  /** Names of each image, in the archive's order. */
  | { readonly kind: 'docker'; readonly images: readonly (readonly string[])[] };

const LAYOUT_FILE = /^(?:\.\/)?(?:oci-layout|index\.json|blobs\/sha256\/[0-9a-f]{64})$/;
const DOCKER_FILE = /^(?:\.\/)?manifest\.json$/;
const dockerManifest = z.array(z.object({ RepoTags: z.array(z.string()).nullish() })).min(1);

/** Reads the archive `path`; the files of an OCI layout are written below `directory`. */
export async function readArchive(path: string, directory: string, signal: AbortSignal): Promise<Archive> {
  let docker: Uint8Array | undefined;
  let isLayout = false;
  const entries = extract();
  const decompress = await decompressor(path);
  const source = createReadStream(path, { highWaterMark: 1024 * 1024 });
  const feeding = decompress
    ? pipeline(source, decompress, entries, { signal })
    : pipeline(source, entries, { signal });
  const reading = (async () => {
    for await (const entry of entries) {
      const { name, type } = entry.header;
      if (type === 'file' && DOCKER_FILE.test(name)) docker = await small(entry, path);
      else if (type === 'file' && LAYOUT_FILE.test(name)) {
        isLayout ||= name.endsWith('oci-layout');
        const file = confine(directory, name);
        await mkdir(dirname(file), { recursive: true, mode: 0o700 });
        await pipeline(entry, createWriteStream(file, { mode: 0o600 }), { signal });
      } else entry.resume();
    }
  })();
  try {
    await Promise.all([feeding, reading]);
  } catch (cause) {
    signal.throwIfAborted();
    throw notAnArchive(path, cause);
  }
  // docker save of late writes both into one archive; its own list has the names.
  if (docker !== undefined) return { kind: 'docker', images: dockerNames(docker, path) };
  if (isLayout) return { kind: 'oci' };
  throw notAnArchive(path);
}

function dockerNames(data: Uint8Array, path: string): readonly (readonly string[])[] {
  try {
    return dockerManifest.parse(JSON.parse(Buffer.from(data).toString('utf8'))).map((image) => image.RepoTags ?? []);
  } catch (cause) {
    throw notAnArchive(path, cause);
  }
}

async function small(entry: AsyncIterable<unknown>, path: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of entry) {
    if (!(chunk instanceof Uint8Array)) continue;
    size += chunk.length;
    if (size > MAX_MANIFEST_BYTES) throw new InfraletError('DATA_LOSS', `the manifest in ${path} is larger than 4 MiB`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function decompressor(path: string): Promise<Transform | undefined> {
  const file = await open(path, 'r');
  try {
    const { buffer } = await file.read(Buffer.alloc(4), 0, 4, 0);
    if (buffer.readUInt16BE(0) === 0x1f8b) return createGunzip();
    return buffer.readUInt32LE(0) === 0xfd2fb528 ? createZstdDecompress() : undefined;
  } finally {
    await file.close();
  }
}

function notAnArchive(path: string, cause?: unknown): InfraletError {
  if (cause instanceof InfraletError) return cause;
  return new InfraletError('INVALID_ARGUMENT', `${path} is not an image archive that can be read`, {
    hint: 'make one with `docker save -o FILE IMAGE` or `skopeo copy SOURCE oci-archive:FILE`',
    cause,
  });
}
