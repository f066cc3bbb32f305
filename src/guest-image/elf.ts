/** The little of ELF (64 bit, little endian) that the build needs: which libraries a program wants, and how to strip it. */
import { InfraletError } from '../base/errors.ts';

const SEGMENT = { load: 1, dynamic: 2, interpreter: 3 } as const;
const TAG = { end: 0n, needed: 1n, stringTable: 5n } as const;

interface Segment {
  readonly type: number;
  readonly offset: number;
  readonly address: number;
  readonly fileSize: number;
}

export function isElf(file: Buffer): boolean {
  return file.length > 64 && file.readUInt32BE(0) === 0x7f454c46 && file[4] === 2 && file[5] === 1;
}

/** File names of the libraries (DT_NEEDED) and absolute path of the dynamic loader; both empty for a static program. */
export function dependencies(file: Buffer): { readonly libraries: readonly string[]; readonly loader: string } {
  const all = segments(file);
  const interpreter = all.find(({ type }) => type === SEGMENT.interpreter);
  const loader = interpreter ? textAt(file, interpreter.offset) : '';
  const dynamic = all.find(({ type }) => type === SEGMENT.dynamic);
  if (!dynamic) return { libraries: [], loader };
  const needed: number[] = [];
  let strings = 0;
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.fileSize; at += 16) {
    const tag = file.readBigInt64LE(at);
    const value = Number(file.readBigUInt64LE(at + 8));
    if (tag === TAG.end) break;
    if (tag === TAG.needed) needed.push(value);
    if (tag === TAG.stringTable) strings = toOffset(all, value);
  }
  return { libraries: needed.map((name) => textAt(file, strings + name)), loader };
}

/**
 * Drops what follows the last segment: section headers, symbols and debug information, which only debuggers and linkers
 * read. The result runs as before.
 */
export function strip(file: Buffer): Buffer {
  const end = Math.max(64, ...segments(file).map(({ offset, fileSize }) => offset + fileSize));
  if (end > file.length) throw new InfraletError('DATA_LOSS', 'a program is shorter than its ELF header says');
  const stripped = Buffer.from(file.subarray(0, end));
  // e_shoff, e_shnum and e_shstrndx: no section headers.
  stripped.writeBigUInt64LE(0n, 40);
  stripped.writeUInt16LE(0, 60);
  stripped.writeUInt16LE(0, 62);
  return stripped;
}

function segments(file: Buffer): readonly Segment[] {
  if (!isElf(file)) throw new InfraletError('INVALID_ARGUMENT', 'not a 64-bit little-endian ELF file');
  const start = Number(file.readBigUInt64LE(32));
  const size = file.readUInt16LE(54);
  const count = file.readUInt16LE(56);
  return Array.from({ length: count }, (_, index) => {
    const at = start + index * size;
    return {
      type: file.readUInt32LE(at),
      offset: Number(file.readBigUInt64LE(at + 8)),
      address: Number(file.readBigUInt64LE(at + 16)),
      fileSize: Number(file.readBigUInt64LE(at + 32)),
    };
  });
}

function toOffset(all: readonly Segment[], address: number): number {
  const home = all.find(
    ({ type, address: start, fileSize }) => type === SEGMENT.load && address >= start && address < start + fileSize,
  );
  if (!home) throw new InfraletError('DATA_LOSS', 'an ELF file points outside its segments');
  return address - home.address + home.offset;
}

function textAt(file: Buffer, offset: number): string {
  return file.toString('latin1', offset, file.indexOf(0, offset));
}
