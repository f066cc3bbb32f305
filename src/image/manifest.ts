/** Manifests, indexes and configurations of OCI and Docker (schema 2): bounded parsing and the choice of a platform. Pure. */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { InfraletError } from '../base/errors.ts';
import { type Digest, parseDigest } from '../base/ids.ts';

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
}

export interface Platform {
  readonly os: string;
  readonly architecture: string;
}

export interface Manifest {
  readonly kind: 'manifest';
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly annotations: Readonly<Record<string, string>>;
}

export interface IndexEntry extends Descriptor {
  readonly platform: Platform | undefined;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface Index {
  readonly kind: 'index';
  readonly mediaType: string;
  readonly manifests: readonly IndexEntry[];
}

export interface ImageConfig extends Platform {
  readonly user: string;
}

/** What every registry and tool keeps to; a larger manifest is an attack, not an image. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
/** Of a configuration; histories of thousands of layers stay far below. */
export const MAX_CONFIG_BYTES = 8 * 1024 * 1024;
const MAX_LAYERS = 1000;

export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';

/** Layers that containerd in the guest unpacks: tar, plain or compressed, in OCI's words and in Docker's. */
const LAYER =
  /^(?:application\/vnd\.oci\.image\.layer\.v1\.tar(?:\+gzip|\+zstd)?|application\/vnd\.docker\.image\.rootfs\.diff\.tar(?:\.gzip|\.zstd)?)$/;

const descriptor = z.object({
  mediaType: z.string().default(''),
  digest: z.string().transform((text) => parseDigest(text)),
  size: z.int().min(0),
  urls: z.array(z.string()).nullish(),
});
const annotations = z
  .record(z.string(), z.string())
  .nullish()
  .transform((value) => value ?? {});
const platform = z.object({ os: z.string(), architecture: z.string() });
const manifestSchema = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  config: descriptor,
  layers: z.array(descriptor).max(MAX_LAYERS),
  annotations,
});
const indexSchema = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  manifests: z.array(descriptor.extend({ platform: platform.nullish(), annotations })),
});
const configSchema = z.object({
  os: z.string().default(''),
  architecture: z.string().default(''),
  config: z
    .object({ User: z.string().nullish() })
    .nullish()
    .transform((value) => value?.User ?? ''),
});

export function digestOf(data: Uint8Array | string): Digest {
  return parseDigest(`sha256:${createHash('sha256').update(data).digest('hex')}`);
}

/** Reads a manifest or an index. `what` names the image in errors. */
export function parseManifest(data: Uint8Array, what: string): Manifest | Index {
  if (data.length > MAX_MANIFEST_BYTES) throw broken(what, 'its manifest is larger than 4 MiB');
  const json = parseJson(data, what);
  if (typeof json === 'object' && json !== null && 'manifests' in json) {
    const index = check(indexSchema, json, what);
    return {
      kind: 'index',
      mediaType: index.mediaType ?? OCI_INDEX,
      manifests: index.manifests.map((entry) => ({ ...entry, platform: entry.platform ?? undefined })),
    };
  }
  if (typeof json === 'object' && json !== null && 'schemaVersion' in json && json.schemaVersion === 1) {
    throw new InfraletError(
      'FAILED_PRECONDITION',
      `image ${what} has a Docker schema 1 manifest, which no runtime runs today`,
      {
        hint: 'push the image again with a tool of the last years',
      },
    );
  }
  const manifest = check(manifestSchema, json, what);
  const foreign = manifest.layers.find((layer) => isForeign(layer.mediaType) || (layer.urls?.length ?? 0) > 0);
  if (foreign) {
    throw new InfraletError(
      'FAILED_PRECONDITION',
      `image ${what} has a layer outside its registry (${foreign.digest})`,
      {
        hint: 'such layers belong to Windows images; choose an image for Linux',
      },
    );
  }
  const odd = manifest.layers.find(({ mediaType }) => !LAYER.test(mediaType));
  if (odd) {
    throw new InfraletError(
      'FAILED_PRECONDITION',
      `image ${what} cannot be run: its layer ${odd.digest} is of type ${JSON.stringify(odd.mediaType)}`,
      {
        hint: odd.mediaType.endsWith('+encrypted')
          ? 'encrypted layers need keys, which this node has not; push the image decrypted'
          : 'it is an artifact (a chart, a model, a signature), not a container image; check the name',
      },
    );
  }
  const docker = manifest.config.mediaType === 'application/vnd.docker.container.image.v1+json';
  return {
    kind: 'manifest',
    mediaType: manifest.mediaType ?? (docker ? DOCKER_MANIFEST : OCI_MANIFEST),
    config: manifest.config,
    layers: manifest.layers,
    annotations: manifest.annotations,
  };
}

/** The entry for `wanted`; entries without a platform come last. Throws NOT_FOUND naming what there is. */
export function choosePlatform(index: Index, wanted: Platform, what: string): IndexEntry {
  const matches = (entry: IndexEntry): boolean =>
    entry.platform?.os === wanted.os && entry.platform.architecture === wanted.architecture;
  const found = index.manifests.find(matches) ?? index.manifests.find((entry) => entry.platform === undefined);
  if (found) return found;
  const offered = index.manifests.flatMap(({ platform }) =>
    // Builders add what is no image (attestations) for a platform that they call unknown.
    platform && platform.os !== 'unknown' ? [`${platform.os}/${platform.architecture}`] : [],
  );
  throw platformError(what, wanted, offered.join(', ') || 'no platform at all');
}

/** Reads a configuration and refuses one made for another platform. */
export function parseConfig(data: Uint8Array, wanted: Platform, what: string): ImageConfig {
  const parsed = check(configSchema, parseJson(data, what), what);
  const other =
    (parsed.os !== '' && parsed.os !== wanted.os) ||
    (parsed.architecture !== '' && parsed.architecture !== wanted.architecture);
  if (other) throw platformError(what, wanted, `${parsed.os}/${parsed.architecture}`);
  return { os: parsed.os, architecture: parsed.architecture, user: parsed.config };
}

/** "1000:1000" → 1000; "www-data:staff" → "www-data"; as containerd reports it. */
export function splitUser(user: string): { readonly uid: number | undefined; readonly username: string } {
  const [name = ''] = user.split(':');
  if (/^-?[0-9]{1,15}$/.test(name)) return { uid: Number(name), username: '' };
  return { uid: undefined, username: name };
}

function isForeign(mediaType: string): boolean {
  return mediaType.includes('.foreign.') || mediaType.includes('.nondistributable.');
}

function platformError(what: string, wanted: Platform, offered: string): InfraletError {
  const name = `${wanted.os}/${wanted.architecture}`;
  return new InfraletError('NOT_FOUND', `image ${what} is not made for ${name}: it offers ${offered}`, {
    hint: `use an image built for ${name}`,
  });
}

function parseJson(data: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(Buffer.from(data).toString('utf8'));
  } catch (cause) {
    throw broken(what, 'it is not JSON', cause);
  }
}

function check<T extends z.ZodType>(schema: T, json: unknown, what: string): z.output<T> {
  try {
    return schema.parse(json);
  } catch (cause) {
    throw broken(what, cause instanceof z.ZodError ? z.prettifyError(cause) : String(cause), cause);
  }
}

function broken(what: string, why: string, cause?: unknown): InfraletError {
  return new InfraletError('DATA_LOSS', `image ${what} is malformed: ${why}`, {
    hint: 'the registry or the file holds a broken image; push or save it again',
    cause,
  });
}
