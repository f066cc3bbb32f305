/** The image service put together: store, index, pulls, loads, and what guests may read. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import PQueue from 'p-queue';
import { errorMessage, InfraletError } from '../base/errors.ts';
import { ensureDirectory } from '../base/files.ts';
import type { Digest, SandboxId } from '../base/ids.ts';
import { type Clock, withTimeout } from '../base/time.ts';
import type { Config } from '../config/schema.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Meters } from '../telemetry/meters.ts';
import { BlobStore } from './blob-store.ts';
import { Catalogue } from './catalogue.ts';
import { credentialsFor, credentialsKey } from './credentials.ts';
import { Grants, GUEST_REGISTRY, guestRepository } from './grants.ts';
import { GuestRegistry } from './guest-registry.ts';
import { ImageIndex, type StoredImage } from './image-index.ts';
import { loadImages } from './load.ts';
import { type Platform, parseConfig } from './manifest.ts';
import { measurePulls } from './meters.ts';
import { type PullDeps, pullImage } from './pull.ts';
import { formatReference, parseReference } from './reference.ts';
import type { ImageService } from './service.ts';
import { SharedWork } from './shared-work.ts';
import { Skopeo } from './skopeo.ts';
import { diskUsage } from './usage.ts';

export interface ImageServiceOptions {
  readonly config: Config['image'];
  readonly stateDir: string;
  /** Of the machines, which need not be the node's own: it decides which image of an index is fetched. */
  readonly platform: Platform;
  readonly log: Logger;
  readonly clock: Clock;
  readonly meters?: Meters | undefined;
}

/** Below the daemon's state directory. */
export function imageDirectory(stateDir: string): string {
  return join(stateDir, 'images');
}

/** Opens the store in `<stateDir>/images`, mends what a kill left, and returns the service. */
export async function createImageService(options: ImageServiceOptions): Promise<ImageService & AsyncDisposable> {
  const { config, clock, platform } = options;
  const log = options.log.child({ component: 'image' });
  const root = imageDirectory(options.stateDir);
  await ensureDirectory(root, 0o700);
  await using building = new AsyncDisposableStack();
  const blobs = building.use(await BlobStore.open(root, log));
  const index = building.use(new ImageIndex(join(root, 'images.db')));
  dropBroken(index, blobs, log);
  await dropForeign(index, blobs, platform, log);
  const catalogue = new Catalogue(index, blobs, config.pinned);
  const loose = blobs.collect();
  if (loose.length > 0) log.info('blobs of no image are deleted', { blobs: loose.length });
  const grants = new Grants(blobs);
  const guests = building.use(new GuestRegistry(blobs, grants, log));
  const skopeo = new Skopeo({ ...config, platform });
  const pullFigures = measurePulls(options.meters, clock);
  const deps: PullDeps = { skopeo, blobs, catalogue, platform, log, clock, onBytes: pullFigures.bytes };

  const queue = new PQueue({ concurrency: config.concurrentPulls });
  const pulls = new SharedWork<StoredImage>();
  building.defer(() => pulls.stop(new InfraletError('UNAVAILABLE', 'the daemon is shutting down')));
  const owned = building.move();

  return {
    pull: async (name, auth, signal) => {
      const reference = parseReference(name);
      const credentials = credentialsFor(auth, reference.registry);
      const key = `${formatReference(reference)} ${credentialsKey(credentials)}`;
      const what = `pulling image ${formatReference(reference)}`;
      const work = async (stop: AbortSignal): Promise<StoredImage> => {
        stop.throwIfAborted();
        using limited = withTimeout(stop, config.pullTimeout, what);
        return await pullFigures.pull(limited, () => pullImage(deps, reference, credentials, limited));
      };
      // The queue is not given the signal: it would let go of work that still winds down, and its slot with it.
      const queued = (stop: AbortSignal): Promise<StoredImage> => queue.add(() => work(stop));
      return catalogue.record(await pulls.join(key, queued, signal));
    },
    load: async (source, names, signal) => {
      const loaded = await loadImages(deps, source, names, signal);
      return loaded.map((image) => catalogue.record(catalogue.get(image.id) ?? image));
    },
    find: (reference) => {
      const image = catalogue.find(reference);
      return image && catalogue.record(image);
    },
    list: () => catalogue.list(),
    remove: async (reference, signal) => {
      signal.throwIfAborted();
      const image = catalogue.find(reference);
      if (!image) return;
      catalogue.delete(image.id);
      log.info('image removed', { image: reference, id: image.id });
      await blobs.settled();
    },
    configuration: async (id) => {
      if (!catalogue.get(id)) throw new InfraletError('NOT_FOUND', `the image ${id} is not on this node`);
      using _kept = blobs.hold([id]);
      return JSON.parse(await readFile(blobs.path(id), 'utf8'));
    },
    usage: async (signal) => {
      const { bytes, inodes } = await diskUsage(root, signal);
      return { mountpoint: root, usedBytes: bytes, inodesUsed: inodes };
    },
    grant: (sandboxId: SandboxId, id: Digest) => {
      const image = catalogue.get(id);
      if (!image) {
        throw new InfraletError('NOT_FOUND', `the image ${id} is not on this node`, {
          hint: 'pull it again, then create the container again',
          context: { sandboxId },
        });
      }
      grants.add(sandboxId, image);
    },
    revoke: (sandboxId) => {
      guests.close(sandboxId);
      grants.end(sandboxId);
    },
    guestReference: (image) => `${GUEST_REGISTRY}/${guestRepository(image.id)}@${image.manifest}`,
    serveGuest: (sandboxId, socket) => guests.serve(sandboxId, socket),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Images that lack a blob, or have one of another size: a disk that lost data, or a hand in the directory. */
function dropBroken(index: ImageIndex, blobs: BlobStore, log: Logger): void {
  for (const image of index.all()) {
    const lost = image.blobs.find((blob) => blobs.size(blob.digest) !== blob.size);
    if (!lost) continue;
    log.error('an image lost a blob and is dropped; pull it again', {
      id: image.id,
      names: [...image.references.keys()],
      blob: lost.digest,
    });
    index.delete(image.id);
  }
}

/** Images for other machines than there are now: a name must not lead to what cannot run. The kubelet pulls them again. */
async function dropForeign(index: ImageIndex, blobs: BlobStore, platform: Platform, log: Logger): Promise<void> {
  for (const image of index.all()) {
    const names = [...image.references.keys()];
    try {
      parseConfig(await readFile(blobs.path(image.id)), platform, names[0] ?? image.id);
    } catch (error) {
      log.warn('an image that no machine here can run is dropped', {
        ...{ id: image.id, names, reason: errorMessage(error) },
      });
      index.delete(image.id);
    }
  }
}
