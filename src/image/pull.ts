/** One pull: what does the name mean at the registry, is it here already, fetch what is missing, check, keep. */
import { InfraletError } from '../base/errors.ts';
import type { Digest } from '../base/ids.ts';
import type { Clock } from '../base/time.ts';
import type { Logger } from '../telemetry/log.ts';
import { admit } from './admission.ts';
import type { BlobStore } from './blob-store.ts';
import type { Catalogue } from './catalogue.ts';
import type { Credentials } from './credentials.ts';
import type { StoredImage } from './image-index.ts';
import { choosePlatform, digestOf, type Index, type Manifest, type Platform, parseManifest } from './manifest.ts';
import { logProgress } from './progress.ts';
import { formatReference, type Reference, repositoryName } from './reference.ts';
import { openSink } from './sink.ts';
import type { Skopeo, Source } from './skopeo.ts';
import type { Staging } from './staging.ts';

export interface PullDeps {
  readonly skopeo: Skopeo;
  readonly blobs: BlobStore;
  readonly catalogue: Catalogue;
  readonly platform: Platform;
  readonly log: Logger;
  readonly clock: Clock;
  /** Told of bytes of blobs that have come from a registry, once per image. */
  readonly onBytes?: ((count: number) => void) | undefined;
}

export async function pullImage(
  deps: PullDeps,
  reference: Reference,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<StoredImage> {
  const image = formatReference(reference);
  const log = deps.log.child({ image });
  const started = deps.clock.now();
  await using staging = await deps.blobs.stage();
  const source: Source = {
    location: `docker://${image}`,
    image,
    registry: reference.registry,
    credentials,
    trusted: false,
  };
  // Always asked, also for digests: the registry is who decides whether these credentials may have the image.
  const top = await deps.skopeo.inspect(source, staging.directory, signal);
  const target = digestOf(top);
  if (reference.digest !== undefined && reference.digest !== target) {
    throw new InfraletError(
      'DATA_LOSS',
      `registry ${reference.registry} answered ${target} when asked for image ${image}`,
    );
  }
  const references = namesFor(reference, target);
  const known = deps.catalogue.byTarget(target);
  if (known) {
    const named = references.entries().every(([name, digest]) => known.references.get(name) === digest);
    const stored = named ? known : deps.catalogue.put({ ...known, references });
    log.info('image is up to date', { id: known.id, ms: deps.clock.now() - started });
    return stored;
  }
  const parsed = parseManifest(top, image);
  if (parsed.kind === 'index') choosePlatform(parsed, deps.platform, image);
  // By digest: a tag that moves meanwhile must not mix two images.
  const exact = { ...source, location: `docker://${repositoryName(reference)}@${target}` };
  const { manifest, received } = await fetch(deps, exact, staging, log, signal);
  deps.onBytes?.(received);
  checkManifest(parsed, manifest, target, image);
  const stored = await admit(staging, deps.catalogue, { what: image, manifest, platform: deps.platform, references });
  log.info('image pulled', { id: stored.id, bytes: received, ms: deps.clock.now() - started });
  return stored;
}

/** Lets skopeo send the image into the staging area; returns the digest of the manifest that came. */
export async function fetch(
  deps: Pick<PullDeps, 'skopeo' | 'clock'>,
  source: Source,
  staging: Staging,
  log: Logger,
  signal: AbortSignal,
): Promise<{ readonly manifest: Digest; readonly received: number }> {
  await using sink = await openSink(staging);
  using progress = new DisposableStack();
  progress.use(logProgress(deps.clock, log, () => ({ bytes: sink.received })));
  try {
    await deps.skopeo.copy(source, sink, staging.directory, signal);
  } catch (error) {
    signal.throwIfAborted();
    if (sink.failure === undefined) throw error;
    throw InfraletError.from(sink.failure);
  }
  const { manifest, received } = sink;
  if (manifest === undefined)
    throw new InfraletError('INTERNAL', `skopeo ended without a manifest for ${source.image}`);
  return { manifest, received };
}

/** The tag as asked for, and the digest the registry showed. */
function namesFor(reference: Reference, target: Digest): ReadonlyMap<string, Digest> {
  const byDigest = formatReference({ ...reference, tag: undefined, digest: target });
  return new Map([
    [formatReference(reference), target],
    [byDigest, target],
  ]);
}

function checkManifest(top: Manifest | Index, manifest: Digest, target: Digest, image: string): void {
  const promised =
    top.kind === 'manifest' ? manifest === target : top.manifests.some((entry) => entry.digest === manifest);
  if (!promised)
    throw new InfraletError('DATA_LOSS', `image ${image} has the manifest ${manifest}, which ${target} does not name`);
}
