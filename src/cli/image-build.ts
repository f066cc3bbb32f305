/** `infralet image build`: the guest image, cached by the digest of its inputs. */
import type { Config } from '../config/schema.ts';
import { buildGuestImage } from '../guest-image/build.ts';
import { type Io, line } from './io.ts';

export async function imageBuild(
  config: Config,
  io: Io,
  options: { readonly json: boolean; readonly force: boolean },
): Promise<void> {
  const result = await buildGuestImage({
    directory: config.guestImageDir,
    force: options.force,
    onProgress: (text) => line(io.err, text),
    signal: io.signal,
  });
  if (options.json) line(io.out, JSON.stringify({ directory: config.guestImageDir, cached: result.cached }));
  else line(io.out, `the guest image is in ${config.guestImageDir}${result.cached ? ' (unchanged)' : ''}`);
}
