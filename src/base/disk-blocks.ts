/** A large file in blocks of one size, without those that hold nothing. */
import { open } from 'node:fs/promises';

export interface Block {
  readonly index: number;
  readonly data: Buffer;
}

/** The blocks that are not all zeros, in order; the last one may be short. */
export async function* filledBlocks(file: string, blockSize: number): AsyncGenerator<Block> {
  await using handle = await open(file, 'r');
  const zeros = Buffer.alloc(blockSize);
  let buffer = Buffer.alloc(blockSize);
  for (let index = 0; ; index += 1) {
    const { bytesRead } = await handle.read(buffer, 0, blockSize, index * blockSize);
    if (bytesRead === 0) return;
    const data = buffer.subarray(0, bytesRead);
    if (data.equals(zeros.subarray(0, bytesRead))) continue;
    yield { index, data };
    // Who got it may keep it.
    buffer = Buffer.alloc(blockSize);
  }
}
