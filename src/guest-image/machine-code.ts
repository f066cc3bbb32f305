/** A few machine instructions with labels, for the guest's own tiny programs. */
import { staticProgram } from '../base/static-program.ts';

/**
 * Bytes as they are; a place that can be named; or an instruction that ends with the distance to such a place: a near jump,
 * or a `lea` of an address relative to the instruction pointer.
 */
export type Code =
  | readonly number[]
  | { readonly label: string }
  | { readonly op: readonly number[]; readonly to: string };

/** Bytes of the distance. */
const NEAR = 4;

/** A program of these instructions; `data` follows the code, each piece under its label. */
export function machineProgram(code: readonly Code[], data: Readonly<Record<string, Buffer>> = {}): Buffer {
  const places = new Map<string, number>();
  let at = 0;
  for (const part of code) {
    if ('label' in part) places.set(part.label, at);
    else at += 'op' in part ? part.op.length + NEAR : part.length;
  }
  for (const [label, bytes] of Object.entries(data)) {
    places.set(label, at);
    at += bytes.length;
  }
  at = 0;
  const bytes = code.flatMap((part) => {
    if ('label' in part) return [];
    if (!('op' in part)) {
      at += part.length;
      return [...part];
    }
    at += part.op.length + NEAR;
    const place = places.get(part.to);
    if (place === undefined) throw new RangeError(`nothing is called ${part.to}`);
    return [...part.op, ...int32(place - at)];
  });
  return staticProgram(Buffer.concat([Buffer.from(bytes), ...Object.values(data)]));
}

/** As instructions carry it. */
export function int32(value: number): readonly number[] {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return [...bytes];
}

/** `mov eax, NUMBER; syscall`. */
export function systemCall(number: number): readonly number[] {
  return [0xb8, ...int32(number), 0x0f, 0x05];
}

/** Ends the program. */
export function exit(code: number): readonly number[] {
  return [0xbf, ...int32(code), ...systemCall(60)]; // mov edi, CODE; exit
}

/** Conditional and other jumps, by the condition of the comparison before. */
export const JUMP = {
  always: [0xe9],
  equal: [0x0f, 0x84],
  notEqual: [0x0f, 0x85],
  negative: [0x0f, 0x88],
  less: [0x0f, 0x8c],
  lessOrEqual: [0x0f, 0x8e],
  below: [0x0f, 0x82],
} as const;
