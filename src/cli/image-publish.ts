/** `infralet image publish PROVIDER`: the guest image as the cloud's own kind of image. */
import { InfraletError } from '../base/errors.ts';
import { loadProvider } from '../cloud/loader.ts';
import type { Config } from '../config/schema.ts';
import { buildDisk } from '../guest-image/disk.ts';
import { type Io, line } from './io.ts';

export interface ImagePublishOptions {
  readonly json: boolean;
  /** Settings of the provider, above those of the configuration: "region=eu-central-1". */
  readonly set: readonly string[];
}

export async function imagePublish(
  config: Config,
  provider: string,
  io: Io,
  options: ImagePublishOptions,
): Promise<void> {
  const module = await loadProvider(provider);
  if (!module.publish) {
    throw new InfraletError(
      'UNIMPLEMENTED',
      `machines of ${provider} start from the image's files: there is nothing to publish`,
    );
  }
  const settings = parseSettings(options.set);
  const onProgress = (text: string): void => line(io.err, text);
  const { file, size, manifest } = await buildDisk({
    directory: config.guestImageDir,
    onProgress,
    signal: io.signal,
  });
  const digest = manifest.imageDigest.slice(0, 16);
  const { id, setting, existed } = await module.publish(
    config.providers[provider],
    {
      settings,
      file,
      size,
      name: `infralet-guest-${digest}`,
      description: `Infralet ${manifest.versions.agent} guest, kernel ${manifest.versions.kernel}`,
      tags: { 'infralet.dev/image-digest': manifest.imageDigest.slice(0, 63), 'infralet.dev/cluster': config.cluster },
      onProgress,
    },
    io.signal,
  );
  if (options.json) line(io.out, JSON.stringify({ id, setting, existed }));
  else line(io.out, `${id}${existed ? ' (it was there already)' : ''}: set providers.${provider}.${setting} to it`);
}

function parseSettings(pairs: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=');
      if (at < 1) throw new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(pair)} is not KEY=VALUE`);
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}
