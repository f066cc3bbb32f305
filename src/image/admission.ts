/** From staged blobs to an image in the index: the last steps, the same for pulls and loads. */
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { Digest } from '../base/ids.ts';
import type { Catalogue } from './catalogue.ts';
import type { StoredImage } from './image-index.ts';
import {
  type Descriptor,
  MAX_CONFIG_BYTES,
  MAX_MANIFEST_BYTES,
  type Platform,
  parseConfig,
  parseManifest,
} from './manifest.ts';
import type { Staging } from './staging.ts';

export interface Admission {
  /** For messages. */
  readonly what: string;
  /** Digest of the platform's manifest, staged. */
  readonly manifest: Digest;
  readonly platform: Platform;
  /** Normalised name → digest of what stood under it. */
  readonly references: ReadonlyMap<string, Digest>;
}

/** Checks manifest, configuration and all blobs, makes them durable, then writes the index. */
export async function admit(staging: Staging, catalogue: Catalogue, admission: Admission): Promise<StoredImage> {
  const { what } = admission;
  try {
    const manifestBytes = await staging.read({ digest: admission.manifest }, MAX_MANIFEST_BYTES);
    const manifest = parseManifest(manifestBytes, what);
    if (manifest.kind !== 'manifest') throw new InfraletError('DATA_LOSS', `an index arrived in place of a manifest`);
    const config = parseConfig(await staging.read(manifest.config, MAX_CONFIG_BYTES), admission.platform, what);
    const own: Descriptor = { mediaType: manifest.mediaType, digest: admission.manifest, size: manifestBytes.length };
    const blobs = unique([own, manifest.config, ...manifest.layers]);
    using hold = new DisposableStack();
    hold.use(await staging.commit(blobs));
    return catalogue.put({
      id: manifest.config.digest,
      manifest: admission.manifest,
      mediaType: manifest.mediaType,
      user: config.user,
      annotations: manifest.annotations,
      blobs,
      references: admission.references,
    });
  } catch (error) {
    if (!(error instanceof InfraletError) || error.message.includes(what)) throw error;
    throw new InfraletError(error.code, `image ${what}: ${errorMessage(error)}`, {
      hint: error.hint ?? 'the registry or the file holds a broken image; push or save it again',
      cause: error,
    });
  }
}

function unique(blobs: readonly Descriptor[]): readonly Descriptor[] {
  return [...new Map(blobs.map(({ mediaType, digest, size }) => [digest, { mediaType, digest, size }])).values()];
}
