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

const CHUNK = 2 ** 20;

/** Copies a file to an offset of another one, which is made if it is missing; blocks of zeros stay holes. */
export async function copySparse(from: string, to: string, signal: AbortSignal, offset = 0): Promise<void> {
  await using source = await open(from, 'r');
  await using target = await open(to, offset === 0 ? 'w' : 'r+', 0o644);
  const { size } = await source.stat();
  const buffer = Buffer.alloc(CHUNK);
  const zeros = Buffer.alloc(CHUNK);
  for (let at = 0; at < size; ) {
    signal.throwIfAborted();
    const { bytesRead } = await source.read(buffer, 0, Math.min(CHUNK, size - at), at);
    if (bytesRead === 0) break;
    for (let block = 0; block < bytesRead; block += BLOCK) {
      const part = buffer.subarray(block, Math.min(block + BLOCK, bytesRead));
      if (!part.equals(zeros.subarray(0, part.length))) await target.write(part, 0, part.length, offset + at + block);
    }
    at += bytesRead;
  }
  if ((await target.stat()).size < offset + size) await target.truncate(offset + size);
}
