/** `infralet image rm NAME…`: takes images out of the node's store. */
import { InfraletError } from '../base/errors.ts';
import type { CriClient } from './cri-client.ts';
import { type Io, line } from './io.ts';

const TIMEOUT_MS = 60_000;

/** Throws NOT_FOUND for a name that the store does not know; the CRI call alone would succeed. */
export async function imageRemove(cri: CriClient, names: readonly string[], io: Io): Promise<void> {
  const limits = { signal: io.signal, timeoutMs: TIMEOUT_MS };
  for (const name of names) {
    const { image } = await cri.call('ImageStatus', { image: { image: name } }, limits);
    if (!image) {
      throw new InfraletError('NOT_FOUND', `there is no image ${JSON.stringify(name)} on this node`, {
        hint: '`infralet image list` shows what there is',
      });
    }
    await cri.call('RemoveImage', { image: { image: name } }, limits);
    line(io.out, `removed ${name}`);
  }
}
