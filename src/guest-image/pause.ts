/** The pause image, as an OCI image archive: one static program that reaps orphans. Made here; no registry is asked. */
import { createHash } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { type Pack, pack } from 'tar-stream';

const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';
const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar';
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';

/** All times are zero, so equal programs make equal images. */
const EPOCH = new Date(0);

export async function makePauseImage(options: {
  readonly program: Uint8Array;
  readonly args: readonly string[];
  readonly reference: string;
  readonly architecture: string;
}): Promise<Buffer> {
  const layer = await tar([{ name: 'pause', mode: 0o755, data: options.program }]);
  const config = json({
    architecture: options.architecture,
    os: 'linux',
    config: { Entrypoint: ['/pause', ...options.args], User: '65535:65535', WorkingDir: '/' },
    rootfs: { type: 'layers', diff_ids: [digest(layer)] },
  });
  const manifest = json({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { mediaType: CONFIG_TYPE, digest: digest(config), size: config.length },
    layers: [{ mediaType: LAYER_TYPE, digest: digest(layer), size: layer.length }],
  });
  const index = json({
    schemaVersion: 2,
    manifests: [
      {
        mediaType: MANIFEST_TYPE,
        digest: digest(manifest),
        size: manifest.length,
        annotations: { 'io.containerd.image.name': options.reference },
      },
    ],
  });
  const blobs = [layer, config, manifest].map((data) => ({
    name: `blobs/sha256/${digest(data).slice('sha256:'.length)}`,
    mode: 0o644,
    data,
  }));
  return await tar([
    { name: 'oci-layout', mode: 0o644, data: json({ imageLayoutVersion: '1.0.0' }) },
    { name: 'index.json', mode: 0o644, data: index },
    ...blobs,
  ]);
}

interface TarFile {
  readonly name: string;
  readonly mode: number;
  readonly data: Uint8Array;
}

async function tar(files: readonly TarFile[]): Promise<Buffer> {
  const archive: Pack = pack();
  for (const { name, mode, data } of files) archive.entry({ name, mode, mtime: EPOCH }, Buffer.from(data));
  archive.finalize();
  return await buffer(archive);
}

function digest(data: Uint8Array): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`;
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
