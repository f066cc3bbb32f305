/** `infralet image build`: the guest image, cached by the digest of its inputs; with `--target raw` the disk for clouds, too. */
import { InfraletError } from '../base/errors.ts';
import type { Config } from '../config/schema.ts';
import { buildGuestImage } from '../guest-image/build.ts';
import { buildDisk } from '../guest-image/disk.ts';
import { type Io, line } from './io.ts';

export interface ImageBuildOptions {
  readonly json: boolean;
  readonly force: boolean;
  readonly target: 'files' | 'raw';
  readonly out?: string;
}

export async function imageBuild(config: Config, io: Io, options: ImageBuildOptions): Promise<void> {
  const build = {
    directory: config.guestImageDir,
    force: options.force,
    onProgress: (text: string) => line(io.err, text),
    signal: io.signal,
  };
  if (options.target === 'raw') {
    const { file, size, cached } = await buildDisk(build, options.out);
    if (options.json) line(io.out, JSON.stringify({ directory: config.guestImageDir, file, size, cached }));
    else line(io.out, `the disk is ${file}${cached ? ' (unchanged)' : ''}`);
    return;
  }
  if (options.out !== undefined) {
    throw new InfraletError('INVALID_ARGUMENT', '--out names the file of a disk', { hint: 'add --target raw' });
  }
  const result = await buildGuestImage(build);
  if (options.json) line(io.out, JSON.stringify({ directory: config.guestImageDir, cached: result.cached }));
  else line(io.out, `the guest image is in ${config.guestImageDir}${result.cached ? ' (unchanged)' : ''}`);
}
