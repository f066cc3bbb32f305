/** `infralet image list`: the node's image store. */

import { printable } from '../base/text.ts';
import type { CriClient } from './cri-client.ts';
import { formatBytes, formatTable } from './format.ts';
import { type Io, line } from './io.ts';

const TIMEOUT_MS = 10_000;

export async function imageList(cri: CriClient, io: Io, options: { readonly json: boolean }): Promise<void> {
  const { images } = await cri.call('ListImages', {}, { signal: io.signal, timeoutMs: TIMEOUT_MS });
  const rows = images.map(({ id, repoTags, repoDigests, size, pinned }) => ({
    id,
    tags: repoTags,
    digests: repoDigests,
    size: Number(size),
    pinned,
  }));
  if (options.json) {
    line(io.out, JSON.stringify(rows, undefined, 2));
    return;
  }
  const cells = rows.flatMap(({ id, tags, digests, size }) => {
    const names = tags.length > 0 ? tags : digests;
    return (names.length > 0 ? names : ['<none>']).map((name) => [
      printable(name),
      id.replace('sha256:', '').slice(0, 13),
      formatBytes(size),
    ]);
  });
  line(
    io.out,
    formatTable(
      ['NAME', 'IMAGE ID', 'SIZE'],
      cells.toSorted((a, b) => (a[0] ?? '').localeCompare(b[0] ?? '')),
    ),
  );
}
