/**
 * Replaces unacceptable `:authority` literals in an HPACK header block (RFC 7541), leaving every other byte alone.
 *
 * A replacement has as many characters as the original: the entry that both sides put into their dynamic table then
 * has the same size on both, and all later indices and evictions agree. Only literals matter: an index refers to an
 * entry that was a literal before and has been replaced then. Encoders name `:authority` by its static index or spell
 * it out; none refers to a dynamic entry for a name that the static table has.
 */
import { decodeHuffman } from './huffman.ts';

const AUTHORITY = ':authority';
const AUTHORITY_INDEX = 1;

/** What nghttp2, and with it Node, refuses in an authority. */
const REFUSED = /[^A-Za-z0-9!$%&'()*+,\-.:;=[\]_~]/g;

interface Literal {
  readonly text: string | undefined;
  readonly end: number;
}

class Malformed extends Error {}

/** The block with acceptable authorities, or undefined when nothing is to change (also when it cannot be read). */
export function rewriteAuthority(block: Buffer): Buffer | undefined {
  try {
    return rewrite(block);
  } catch (error) {
    if (error instanceof Malformed) return undefined;
    throw error;
  }
}

function rewrite(block: Buffer): Buffer | undefined {
  const parts: Buffer[] = [];
  let copied = 0;
  let at = 0;
  while (at < block.length) {
    const first = byteAt(block, at);
    if ((first & 0x80) !== 0) {
      at = readInteger(block, at, 7).end;
      continue;
    }
    if ((first & 0xe0) === 0x20) {
      at = readInteger(block, at, 5).end;
      continue;
    }
    const index = readInteger(block, at, (first & 0x40) === 0 ? 4 : 6);
    at = index.end;
    let isAuthority = index.value === AUTHORITY_INDEX;
    if (index.value === 0) {
      const name = readString(block, at, true);
      isAuthority = name.text === AUTHORITY;
      at = name.end;
    }
    const value = readString(block, at, isAuthority);
    if (isAuthority && value.text !== undefined) {
      const accepted = value.text.replace(REFUSED, '.');
      if (accepted !== value.text) {
        parts.push(block.subarray(copied, at), plainString(accepted));
        copied = value.end;
      }
    }
    at = value.end;
  }
  return parts.length === 0 ? undefined : Buffer.concat([...parts, block.subarray(copied)]);
}

/** A string literal; its text is decoded only when wanted. */
function readString(block: Buffer, at: number, wanted: boolean): Literal {
  const huffman = (byteAt(block, at) & 0x80) !== 0;
  const length = readInteger(block, at, 7);
  const end = length.end + length.value;
  if (end > block.length) throw new Malformed();
  if (!wanted) return { text: undefined, end };
  const bytes = block.subarray(length.end, end);
  return { text: huffman ? decodeHuffman(bytes) : bytes.toString('latin1'), end };
}

/** An integer with an N-bit prefix (RFC 7541, 5.1). */
function readInteger(block: Buffer, at: number, prefixBits: number): { readonly value: number; readonly end: number } {
  const mask = 2 ** prefixBits - 1;
  let value = byteAt(block, at) & mask;
  let end = at + 1;
  if (value < mask) return { value, end };
  for (let shift = 0; ; shift += 7) {
    // Longer integers than 28 bits are no lengths or indices of any real header block.
    if (shift > 21) throw new Malformed();
    const byte = byteAt(block, end++);
    value += (byte & 0x7f) * 2 ** shift;
    if ((byte & 0x80) === 0) return { value, end };
  }
}

function plainString(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  const mask = 0x7f;
  if (bytes.length < mask) return Buffer.concat([Buffer.of(bytes.length), bytes]);
  const length: number[] = [mask];
  let rest = bytes.length - mask;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) length.push((rest % 0x80) | 0x80);
  length.push(rest);
  return Buffer.concat([Buffer.from(length), bytes]);
}

function byteAt(block: Buffer, at: number): number {
  const byte = block[at];
  if (byte === undefined) throw new Malformed();
  return byte;
}
