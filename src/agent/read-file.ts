/** `ReadFile`: the beginning of one file. */
import { closeSync, constants, fstatSync, read } from 'node:fs';
import { promisify } from 'node:util';
import { InfraletError } from '../base/errors.ts';
import { CHUNK_BYTES } from '../rpc/agent-protocol.ts';
import { components, Directory } from './directory.ts';

const readAt = promisify(read);

/** Yields chunks of at most CHUNK_BYTES, `limit` bytes in all; the consumer's pace is the reader's pace. */
export async function* readFile(root: string, path: string, limit: number): AsyncGenerator<{ readonly data: Buffer }> {
  const parts = components(path);
  const name = parts.at(-1);
  if (name === undefined) throw new InfraletError('INVALID_ARGUMENT', 'the path names no file');
  const fd = opened(root, parts.slice(0, -1), name);
  try {
    if (!fstatSync(fd).isFile()) throw new InfraletError('FAILED_PRECONDITION', `${path} is not a regular file`);
    let offset = 0;
    while (offset < limit) {
      const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, limit - offset));
      const { bytesRead } = await readAt(fd, buffer, 0, buffer.length, offset);
      if (bytesRead === 0) return;
      yield { data: buffer.subarray(0, bytesRead) };
      offset += bytesRead;
    }
  } finally {
    closeSync(fd);
  }
}

function opened(root: string, parents: readonly string[], name: string): number {
  using directory = Directory.walk(root, parents, false);
  return directory.open(name, constants.O_RDONLY);
}
