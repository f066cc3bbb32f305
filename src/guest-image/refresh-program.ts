/**
 * The guest's `refresh` program: sets the clock and reseeds the kernel's random generator at once. No program of Debian
 * makes the ioctl that does the latter, and a clone that only mixed bytes in would go on with its template's random
 * numbers until the kernel reseeds by itself, up to a minute later.
 *
 * Standard input, one message: seconds and nanoseconds since the epoch as two 64-bit little-endian numbers (seconds 0:
 * the clock is left alone), then up to 4080 random bytes. Exit code 0 when all of it was done.
 */
import { staticProgram } from '../base/static-program.ts';

const MAX_INPUT = 4096;

export function refreshProgram(): Buffer {
  const path = Buffer.from('/dev/urandom\0');
  // Each jump to the failing end is a near one: opcode, then four bytes that are known when all lengths are.
  const parts: (readonly number[] | { readonly fail: readonly number[] } | 'path')[] = [
    [0x48, 0x81, 0xec, ...int32(MAX_INPUT + 64)], // sub rsp, MAX_INPUT + 64
    [0x31, 0xff, 0x48, 0x89, 0xe6, 0xba, ...int32(MAX_INPUT)], // xor edi, edi; mov rsi, rsp; mov edx, MAX_INPUT
    [0x31, 0xc0, 0x0f, 0x05], // xor eax, eax (SYS_read); syscall
    [0x49, 0x89, 0xc4, 0x49, 0x83, 0xfc, 16], // mov r12, rax; cmp r12, 16
    { fail: [0x0f, 0x8c] }, // jl fail
    [0x48, 0x83, 0x3c, 0x24, 0, 0x74, 20], // cmp qword [rsp], 0; je over the next 20 bytes
    [0xb8, ...int32(227), 0x31, 0xff, 0x48, 0x89, 0xe6, 0x0f, 0x05], // clock_settime(CLOCK_REALTIME, rsp)
    [0x85, 0xc0], // test eax, eax
    { fail: [0x0f, 0x85] }, // jne fail
    'path', // lea rdi, [rip + path]
    [0xbe, ...int32(2), 0x31, 0xd2, 0xb8, ...int32(2), 0x0f, 0x05, 0x85, 0xc0], // open(path, O_RDWR); test eax, eax
    { fail: [0x0f, 0x88] }, // js fail
    [0x41, 0x89, 0xc5, 0x44, 0x89, 0xef, 0x48, 0x8d, 0x74, 0x24, 16], // mov r13d, eax; mov edi, r13d; lea rsi, [rsp + 16]
    [0x4c, 0x89, 0xe2, 0x48, 0x83, 0xea, 16, 0xb8, ...int32(1), 0x0f, 0x05], // mov rdx, r12; sub rdx, 16; write
    [0x44, 0x89, 0xef, 0xbe, ...int32(0x5207), 0x31, 0xd2], // mov edi, r13d; mov esi, RNDRESEEDCRNG; xor edx, edx
    [0xb8, ...int32(16), 0x0f, 0x05, 0x85, 0xc0], // ioctl; test eax, eax
    { fail: [0x0f, 0x85] }, // jne fail
    [0x31, 0xff, 0xb8, ...int32(60), 0x0f, 0x05], // exit(0)
  ];
  const lengths = parts.map((part) => (part === 'path' ? 7 : 'fail' in part ? 6 : part.length));
  const end = lengths.reduce((sum, length) => sum + length, 0);
  const failing = [0xbf, ...int32(1), 0xb8, ...int32(60), 0x0f, 0x05]; // exit(1)
  let at = 0;
  const code = parts.flatMap((part, index) => {
    at += lengths[index] ?? 0;
    if (part === 'path') return [0x48, 0x8d, 0x3d, ...int32(end + failing.length - at)];
    return 'fail' in part ? [...part.fail, ...int32(end - at)] : [...part];
  });
  return staticProgram(Buffer.concat([Buffer.from([...code, ...failing]), path]));
}

function int32(value: number): readonly number[] {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return [...bytes];
}
