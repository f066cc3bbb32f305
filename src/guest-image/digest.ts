/** Digests: of what goes into an image, and of the files that come out. */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

/**
 * SHA-256 over named parts. Every part is framed by its length, so that no two different lists of parts give the same
 * bytes; the order of names does not matter.
 */
export function digestParts(parts: Readonly<Record<string, string | Uint8Array>>): string {
  const hash = createHash('sha256');
  for (const name of Object.keys(parts).sort()) {
    frame(hash, Buffer.from(name));
    const part = parts[name] ?? '';
    frame(hash, typeof part === 'string' ? Buffer.from(part) : part);
  }
  return hash.digest('hex');
}

/** SHA-256 over paths, kinds, executable bits and contents below `directory`; owners and times do not count. */
export async function digestTree(directory: string, include: (path: string) => boolean = () => true): Promise<string> {
  const parts: Record<string, Uint8Array> = {};
  for (const path of (await readdir(directory, { recursive: true })).filter(include)) {
    const full = join(directory, path);
    const info = await lstat(full);
    if (info.isSymbolicLink()) parts[`link ${path}`] = Buffer.from(await readlink(full));
    else if (info.isFile()) parts[`${info.mode & 0o100 ? 'program' : 'file'} ${path}`] = await readFile(full);
  }
  return digestParts(parts);
}

export async function digestFile(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1024 * 1024 }), hash, { signal });
  return hash.digest('hex');
}

/** A name-based UUID: equal inputs make equal file systems. */
export function digestUuid(name: string): string {
  const hex = createHash('sha256').update(name).digest('hex');
  const variant = ((Number.parseInt(hex.charAt(16), 16) & 0x3) | 0x8).toString(16);
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `${variant}${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join('-');
}

function frame(hash: Hash, data: Uint8Array): void {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(data.length));
  hash.update(length).update(data);
}
