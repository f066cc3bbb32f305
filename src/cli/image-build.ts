/** `infralet image build`: the guest image, cached by the digest of its inputs. */
import type { Config } from '../config/schema.ts';
import { type Io, line } from './io.ts';

const BUILDER: string = '../guest-image/build.ts';

interface Builder {
  readonly buildGuestImage: (options: {
    readonly directory: string;
    readonly onProgress: (text: string) => void;
    readonly signal: AbortSignal;
  }) => Promise<{ readonly cached: boolean }>;
}

export async function imageBuild(config: Config, io: Io, options: { readonly json: boolean }): Promise<void> {
  const { buildGuestImage } = (await import(BUILDER)) as Builder;
  const result = await buildGuestImage({
    directory: config.guestImageDir,
    onProgress: (text) => line(io.err, text),
    signal: io.signal,
  });
  if (options.json) line(io.out, JSON.stringify({ directory: config.guestImageDir, cached: result.cached }));
  else line(io.out, `the guest image is in ${config.guestImageDir}${result.cached ? ' (unchanged)' : ''}`);
}
