/** `infralet image load FILE|oci:DIR`: images without a registry. */
import type { AdminClient } from '../admin/client.ts';
import { printable } from '../base/text.ts';
import { formatBytes } from './format.ts';
import { type Io, line } from './io.ts';

/** An archive of many gigabytes on a slow disk. */
const TIMEOUT_MS = 30 * 60_000;

export async function imageLoad(
  admin: AdminClient,
  source: string,
  io: Io,
  options: { readonly names: readonly string[] },
): Promise<void> {
  const images = await admin.loadImage(source, options.names, { signal: io.signal, timeoutMs: TIMEOUT_MS });
  for (const { id, tags, size } of images) {
    const names = tags.length > 0 ? tags.join(', ') : 'an image without a name';
    line(
      io.out,
      `loaded ${printable(names)} (${id.replace('sha256:', '').slice(0, 13)}, ${formatBytes(Number(size))})`,
    );
  }
}
