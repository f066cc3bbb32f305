/** Small images made on the spot from Debian's busybox-static. */
import { randomBytes } from 'node:crypto';
import type { Digest } from '../../src/base/ids.ts';
import { busyboxEntries } from '../../src/image/demo.ts';
import { type Compression, type IndexMember, type Layer, LayoutWriter } from '../../src/image/layout-writer.ts';
import type { Descriptor, Platform } from '../../src/image/manifest.ts';
import { hostPlatform } from '../../src/image/platform.ts';

export interface BusyboxOptions {
  /** Tag within the layout. @default "latest" */
  readonly tag?: string;
  /** An index with an image for a foreign platform first. @default false */
  readonly multiArch?: boolean;
  /** Only the foreign platform. @default false */
  readonly foreignOnly?: boolean;
  /** @default "gzip" */
  readonly compression?: Compression;
  /** "User" of the configuration. @default "" */
  readonly user?: string;
  /** Bytes of a second layer that does not compress; random, so that the image is unlike any other. @default 0 */
  readonly payload?: number;
  /** @default ["/bin/sh"] */
  readonly command?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
  /** Annotations of the entry in the layout's index. */
  readonly labels?: Readonly<Record<string, string>>;
}

export interface BusyboxImage {
  readonly directory: string;
  /** For skopeo and `image load`: "oci:DIR:TAG". */
  readonly location: string;
  /** Image id for this host's platform. */
  readonly id: Digest;
  readonly manifest: Digest;
  /** What the tag names: the manifest, or the index. */
  readonly target: Digest;
  readonly layers: readonly Layer[];
  /** Bytes of manifest, configuration and layers. */
  readonly size: number;
}

const FOREIGN: Platform = { os: 'linux', architecture: 's390x' };

export async function busyboxImage(directory: string, options: BusyboxOptions = {}): Promise<BusyboxImage> {
  const { tag = 'latest', compression = 'gzip', user = '', payload = 0, command = ['/bin/sh'] } = options;
  const writer = await LayoutWriter.create(directory);
  const layers = [await writer.layer(await busyboxEntries(AbortSignal.timeout(60_000)), compression)];
  if (payload > 0) {
    const file = { type: 'file', path: 'payload', data: randomBytes(payload), mode: 0o644 } as const;
    layers.push(await writer.layer([file], compression));
  }
  const config = { User: user, Cmd: command, Env: ['PATH=/bin'], WorkingDir: '/' };
  const annotations = options.annotations ? { annotations: options.annotations } : {};
  const image = (platform: Platform): ReturnType<LayoutWriter['image']> =>
    writer.image({ layers, platform, config, ...annotations });
  const own = await image(options.foreignOnly ? FOREIGN : hostPlatform());
  const target = options.multiArch
    ? await writer.index([member((await image(FOREIGN)).manifest, FOREIGN), member(own.manifest, hostPlatform())])
    : own.manifest;
  const labels = { 'org.opencontainers.image.ref.name': tag, ...options.labels };
  await writer.finish([{ ...target, annotations: labels }]);
  return {
    directory,
    location: `oci:${directory}:${tag}`,
    id: own.config.digest,
    manifest: own.manifest.digest,
    target: target.digest,
    layers,
    size: [own.manifest, own.config, ...layers].reduce((sum, blob) => sum + blob.size, 0),
  };
}

function member(descriptor: Descriptor, platform: Platform): IndexMember {
  return { ...descriptor, platform };
}
