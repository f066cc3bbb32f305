/** Reading OCI layout directories: which images they hold, and their blobs. */
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import type { Digest } from '../base/ids.ts';
import {
  choosePlatform,
  type Descriptor,
  digestOf,
  type Index,
  type IndexEntry,
  MAX_MANIFEST_BYTES,
  type Platform,
  parseManifest,
} from './manifest.ts';
import type { Staging } from './staging.ts';

export interface LayoutImage {
  /** What the layout's index names: a manifest, or an index of several platforms. */
  readonly target: Digest;
  /** The platform's manifest. */
  readonly manifest: Descriptor;
  /** Full names that the layout gives it; a bare tag is none. */
  readonly names: readonly string[];
}

/** Indexes of indexes exist; deeper than this they are an attack. */
const MAX_DEPTH = 4;

/** The images of a layout: those with `tag`, else every named one, else the one for the platform. */
export async function resolveLayout(
  directory: string,
  tag: string | undefined,
  platform: Platform,
): Promise<readonly LayoutImage[]> {
  const top = await readIndex(directory);
  const labelled = top.manifests.filter((entry) =>
    tag === undefined ? labels(entry).length > 0 : labels(entry).includes(tag),
  );
  if (tag !== undefined && labelled.length === 0) {
    throw new InfraletError(
      'NOT_FOUND',
      `the OCI layout ${directory} has no image with the tag ${JSON.stringify(tag)}`,
    );
  }
  const entries = labelled.length > 0 ? labelled : top.manifests;
  // Entries of one label are one image for several platforms.
  const groups = Map.groupBy(entries, (entry) => labels(entry)[0] ?? '');
  const images: LayoutImage[] = [];
  for (const group of groups.values()) {
    const chosen = choosePlatform({ ...top, manifests: group }, platform, directory);
    const manifest = await descend(directory, chosen, platform, MAX_DEPTH);
    const names = labels(chosen).filter((label) => /[/:]/.test(label));
    images.push({ target: chosen.digest, manifest, names });
  }
  return images;
}

/** Copies the manifest's blobs, each checked against its digest. */
export async function stageLayout(
  directory: string,
  manifest: Descriptor,
  staging: Staging,
  what: string,
  signal: AbortSignal,
): Promise<void> {
  const parsed = parseManifest(await readBlob(directory, manifest.digest), what);
  if (parsed.kind !== 'manifest')
    throw new InfraletError('DATA_LOSS', `image ${what}: an index stands where a manifest should`);
  for (const { digest } of [manifest, parsed.config, ...parsed.layers]) {
    if (staging.reuse(digest) !== undefined) continue;
    await using upload = await staging.upload();
    for await (const chunk of openBlob(directory, digest, signal)) await upload.write(chunk);
    await staging.keep(upload, digest);
  }
}

async function readIndex(directory: string): Promise<Index> {
  try {
    const parsed = parseManifest(await readFile(join(directory, 'index.json')), directory);
    if (parsed.kind === 'index') return parsed;
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  }
  throw new InfraletError('INVALID_ARGUMENT', `${directory} is not an OCI layout: it has no index.json with manifests`);
}

async function descend(directory: string, entry: IndexEntry, platform: Platform, depth: number): Promise<Descriptor> {
  const parsed = parseManifest(await readBlob(directory, entry.digest), directory);
  if (parsed.kind === 'manifest') return { mediaType: parsed.mediaType, digest: entry.digest, size: entry.size };
  if (depth === 0) throw new InfraletError('DATA_LOSS', `the OCI layout ${directory} nests indexes too deeply`);
  return await descend(directory, choosePlatform(parsed, platform, directory), platform, depth - 1);
}

async function readBlob(directory: string, digest: Digest): Promise<Uint8Array> {
  const path = blobPath(directory, digest);
  const info = await stat(path).catch((cause: unknown) => {
    throw new InfraletError('DATA_LOSS', `the OCI layout ${directory} lacks the blob ${digest}`, { cause });
  });
  if (info.size > MAX_MANIFEST_BYTES)
    throw new InfraletError('DATA_LOSS', `the manifest ${digest} is larger than 4 MiB`);
  const data = await readFile(path);
  if (digestOf(data) !== digest) throw new InfraletError('DATA_LOSS', `the blob ${digest} of ${directory} is damaged`);
  return data;
}

async function* openBlob(directory: string, digest: Digest, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    yield* createReadStream(blobPath(directory, digest), { highWaterMark: 1024 * 1024, signal });
  } catch (cause) {
    if (!hasErrno(cause, 'ENOENT')) throw cause;
    throw new InfraletError('DATA_LOSS', `the OCI layout ${directory} lacks the blob ${digest}`, { cause });
  }
}

function blobPath(directory: string, digest: Digest): string {
  return join(directory, 'blobs', 'sha256', digest.slice('sha256:'.length));
}

/** containerd's annotation has the full name, OCI's often the tag alone. */
function labels(entry: IndexEntry): readonly string[] {
  const { 'io.containerd.image.name': full, 'org.opencontainers.image.ref.name': short } = entry.annotations;
  return [full, short].filter((label) => label !== undefined);
}
