/**
 * The part of HPACK's Huffman code (RFC 7541, appendix B) that text of the `:authority` header can hold: every symbol of
 * up to 15 bits, and the backslash. The code is canonical, so lengths and order give the codes.
 */

/** Symbols by code length, each list in the order of the code. */
const SYMBOLS: readonly (readonly [bits: number, symbols: string])[] = [
  [5, '012aceiost'],
  [6, ' %-./3456789=A_bdfghlmnpru'],
  [7, ':BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz'],
  [8, '&*,;XZ'],
  [10, '!"()?'],
  [11, "'+|"],
  [12, '#>'],
  [13, '\0$@[]~'],
  [14, '^}'],
  [15, '<`{'],
  [19, '\\'],
];

const LONGEST = 19;

/** A code with its length as a leading 1 bit, so that 0001 and 01 differ. */
const marked = (bits: number, code: number): number => 2 ** bits + code;

const BY_CODE: ReadonlyMap<number, string> = (() => {
  const table = new Map<number, string>();
  let code = 0;
  let length = 0;
  for (const [bits, symbols] of SYMBOLS) {
    code *= 2 ** (bits - length);
    length = bits;
    for (const symbol of symbols) table.set(marked(bits, code++), symbol);
  }
  return table;
})();

/** Decodes a Huffman-coded string; undefined when it holds a symbol outside the table or is malformed. */
export function decodeHuffman(data: Uint8Array): string | undefined {
  let text = '';
  let code = 1;
  let bits = 0;
  for (const byte of data) {
    for (let bit = 7; bit >= 0; bit--) {
      code = code * 2 + ((byte >> bit) & 1);
      bits++;
      const symbol = BY_CODE.get(code);
      if (symbol !== undefined) {
        text += symbol;
        code = 1;
        bits = 0;
      } else if (bits > LONGEST) return undefined;
    }
  }
  // What is left is padding: fewer than 8 bits, all ones.
  return bits < 8 && code === 2 ** (bits + 1) - 1 ? text : undefined;
}
