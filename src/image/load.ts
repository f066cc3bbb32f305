/** Images without a registry: OCI layouts and archives that the administrator names. */
import { stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { admit } from './admission.ts';
import { readArchive } from './archive.ts';
import type { StoredImage } from './image-index.ts';
import { resolveLayout, stageLayout } from './layout.ts';
import { fetch, type PullDeps } from './pull.ts';
import { formatReference, parseReference } from './reference.ts';
import type { Staging } from './staging.ts';

/** Loads what `source` holds under `names`, or under the names it carries itself. */
export async function loadImages(
  deps: PullDeps,
  source: string,
  names: readonly string[],
  signal: AbortSignal,
): Promise<readonly StoredImage[]> {
  const given = names.map((name) => formatReference(parseReference(name)));
  const { path, tag } = await locate(source);
  await using staging = await deps.blobs.stage();
  if ((await stat(path)).isDirectory()) return await loadLayout(deps, staging, path, tag, given, signal);
  const layout = join(staging.directory, 'layout');
  const archive = await readArchive(path, layout, signal);
  if (archive.kind === 'oci') return await loadLayout(deps, staging, layout, tag, given, signal);
  requireSingle(source, archive.images.length, given);
  const loaded: StoredImage[] = [];
  for (const [position, own] of archive.images.entries()) {
    const wanted = given.length > 0 ? given : own.map((name) => formatReference(parseReference(name)));
    const location = `docker-archive:${path}:@${position}`;
    const image = requireNames(wanted, source);
    const { manifest } = await fetch(
      deps,
      { location, image, registry: undefined, credentials: undefined, trusted: true },
      staging,
      deps.log,
      signal,
    );
    const references = namesWithDigest(wanted, manifest);
    loaded.push(await admit(staging, deps.catalogue, { what: image, manifest, platform: deps.platform, references }));
  }
  return loaded;
}

async function loadLayout(
  deps: PullDeps,
  staging: Staging,
  directory: string,
  tag: string | undefined,
  given: readonly string[],
  signal: AbortSignal,
): Promise<readonly StoredImage[]> {
  const images = await resolveLayout(directory, tag, deps.platform);
  requireSingle(directory, images.length, given);
  const loaded: StoredImage[] = [];
  for (const { target, manifest, names } of images) {
    const wanted = given.length > 0 ? given : names.map((name) => formatReference(parseReference(name)));
    const what = requireNames(wanted, directory);
    await stageLayout(directory, manifest, staging, what, signal);
    const references = namesWithDigest(wanted, target);
    const admission = { what, manifest: manifest.digest, platform: deps.platform, references };
    loaded.push(await admit(staging, deps.catalogue, admission));
  }
  return loaded;
}

/** "oci:DIR[:TAG]", "oci-archive:FILE[:TAG]", "docker-archive:FILE", or a path alone. */
async function locate(source: string): Promise<{ readonly path: string; readonly tag: string | undefined }> {
  const rest = source.replace(/^(?:oci|oci-archive|docker-archive):/, '');
  if (await exists(rest)) return { path: resolve(rest), tag: undefined };
  const colon = rest.lastIndexOf(':');
  const path = rest.slice(0, Math.max(colon, 0));
  if (path !== '' && (await exists(path))) return { path: resolve(path), tag: rest.slice(colon + 1) };
  throw new InfraletError('NOT_FOUND', `there is no image file or directory ${JSON.stringify(rest)}`, {
    hint: 'name an archive (docker save, skopeo copy … oci-archive:), or an OCI layout as oci:DIR[:TAG]',
  });
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR')) return false;
    throw error;
  }
}

function requireSingle(source: string, count: number, given: readonly string[]): void {
  if (count === 1 || given.length === 0) return;
  throw new InfraletError(
    'INVALID_ARGUMENT',
    `${source} holds ${count} images, so names cannot be given to all of them`,
    {
      hint: 'choose one as oci:DIR:TAG, or load them under the names they carry',
    },
  );
}

function requireNames(names: readonly string[], source: string): string {
  const [first] = names;
  if (first !== undefined) return first;
  throw new InfraletError('INVALID_ARGUMENT', `the image in ${source} carries no full name`, {
    hint: 'give it one: infralet image load SOURCE NAME',
  });
}

/** Loaded images get a digest name too, so that pods that pin digests find them. */
function namesWithDigest(names: readonly string[], target: StoredImage['id']): StoredImage['references'] {
  const digests = names.map((name) => formatReference({ ...parseReference(name), tag: undefined, digest: target }));
  return new Map([...names.filter((name) => !name.includes('@')), ...digests].map((name) => [name, target]));
}
