/**
 * Protobuf encoding of messages that are sent by the ten thousand: from plain objects straight to bytes, without the
 * message objects and 64-bit numbers that the general encoder makes of them first. Field numbers are the proto file's;
 * tests compare with the general encoder.
 */

/** Grows as needed; one message is written at a time, from its end to its beginning, so that lengths are known. */
let buffer = Buffer.allocUnsafeSlow(64 * 1024);
let start = buffer.length;

/** Writes what is before the place written last. */
export type Write<Value> = (value: Value) => void;

function room(bytes: number): void {
  if (start >= bytes) return;
  const used = buffer.length - start;
  const larger = Buffer.allocUnsafeSlow(2 * (used + bytes));
  buffer.copy(larger, larger.length - used, start);
  buffer = larger;
  start = buffer.length - used;
}

function bytes(value: Uint8Array): void {
  room(value.length);
  start -= value.length;
  buffer.set(value, start);
}

/** A natural number up to 2^53. */
function natural(value: number): void {
  room(10);
  let length = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) length += 1;
  start -= length;
  let rest = value;
  for (let at = start; at < start + length - 1; at += 1) {
    buffer[at] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  buffer[start + length - 1] = rest;
}

const EXACT_DIGITS = 15;
/** Times are the same in many fields that follow each other. */
let lastText = '';
let lastBytes = Buffer.alloc(0);

function naturalText(text: string): void {
  if (text.length <= EXACT_DIGITS) {
    natural(Number(text));
    return;
  }
  if (text !== lastText) {
    const septets: number[] = [];
    for (let rest = BigInt(text); rest > 0n; rest >>= 7n) septets.push(Number(rest & 127n) | (rest > 127n ? 128 : 0));
    lastText = text;
    lastBytes = Buffer.from(septets);
  }
  bytes(lastBytes);
}

/** uint64, int64 of what is not negative, and enums. Zero is left out, as everywhere in proto3. */
export const varint =
  (field: number): Write<number | string | undefined> =>
  (value = 0) => {
    if (value === 0 || value === '0') return;
    if (typeof value === 'string') naturalText(value);
    else natural(value);
    natural(field * 8);
  };

export const double =
  (field: number): Write<number | undefined> =>
  (value = 0) => {
    if (value === 0) return;
    room(8);
    start -= 8;
    buffer.writeDoubleLE(value, start);
    natural(field * 8 + 1);
  };

function framed(field: number, body: () => void): void {
  const end = buffer.length - start;
  body();
  natural(buffer.length - start - end);
  natural(field * 8 + 2);
}

/** One of several: an empty one counts, too. */
export const textItem =
  (field: number): Write<string> =>
  (value) => {
    const length = Buffer.byteLength(value);
    room(length);
    start -= length;
    buffer.write(value, start);
    natural(length);
    natural(field * 8 + 2);
  };

export const text = (field: number): Write<string | undefined> => {
  const item = textItem(field);
  return (value = '') => {
    if (value !== '') item(value);
  };
};

/** A message; null and undefined are left out. `fields` writes them, the last one first. */
export const message =
  <Value extends object>(field: number, fields: Write<Value>): Write<Value | null | undefined> =>
  (value) => {
    if (value) framed(field, () => fields(value));
  };

export const repeated =
  <Value>(write: Write<Value>): Write<readonly Value[] | undefined> =>
  (values = []) => {
    for (let at = values.length - 1; at >= 0; at -= 1) write(values[at] as Value);
  };

/** What is made of one object is kept as long as the object, which must not change. */
export function kept<Value extends object>(write: Write<Value>): Write<Value | null | undefined> {
  const encodings = new WeakMap<Value, Buffer>();
  return (value) => {
    if (!value) return;
    let encoding = encodings.get(value);
    if (!encoding) {
      const before = buffer.length - start;
      write(value);
      encoding = Buffer.from(buffer.subarray(start, buffer.length - before));
      encodings.set(value, encoding);
    } else bytes(encoding);
  };
}

/** The bytes of one message, framed as the field that it is of its own message. */
export function encoded<Value>(write: Write<Value>, value: Value): Buffer {
  start = buffer.length;
  write(value);
  return Buffer.from(buffer.subarray(start));
}
