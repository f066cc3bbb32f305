/** Writing files with holes. */
import { open } from 'node:fs/promises';

const BLOCK = 4096;

/** Writes `data` to the new file `path`; blocks of zeros become holes. */
export async function writeSparse(path: string, data: Buffer): Promise<void> {
  await using file = await open(path, 'wx', 0o644);
  const zeros = Buffer.alloc(BLOCK);
  const isHole = (at: number): boolean => {
    const block = data.subarray(at, at + BLOCK);
    return block.equals(zeros.subarray(0, block.length));
  };
  for (let at = 0; at < data.length; ) {
    let end = at;
    while (end < data.length && !isHole(end)) end += BLOCK;
    if (end > at) await file.write(data, at, Math.min(end, data.length) - at, at);
    at = end;
    while (at < data.length && isHole(at)) at += BLOCK;
  }
  await file.truncate(data.length);
}
