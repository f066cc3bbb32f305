/**
 * The guest's `refresh` program: sets the clock and reseeds the kernel's random generator at once. No program of Debian
 * makes the ioctl that does the latter, and a clone that only mixed bytes in would go on with its template's random
 * numbers until the kernel reseeds by itself, up to a minute later.
 *
 * Standard input, one message: seconds and nanoseconds since the epoch as two 64-bit little-endian numbers (seconds 0:
 * the clock is left alone), then up to 4080 random bytes. Exit code 0 when all of it was done.
 */
import { exit, int32, JUMP, machineProgram, systemCall } from './machine-code.ts';

const MAX_INPUT = 4096;

export function refreshProgram(): Buffer {
  return machineProgram(
    [
      [0x48, 0x81, 0xec, ...int32(MAX_INPUT + 64)], // sub rsp, MAX_INPUT + 64
      [0x31, 0xff, 0x48, 0x89, 0xe6, 0xba, ...int32(MAX_INPUT)], // xor edi, edi; mov rsi, rsp; mov edx, MAX_INPUT
      systemCall(0), // read
      [0x49, 0x89, 0xc4, 0x49, 0x83, 0xfc, 16], // mov r12, rax; cmp r12, 16
      { op: JUMP.less, to: 'fail' },
      [0x48, 0x83, 0x3c, 0x24, 0], // cmp qword [rsp], 0
      { op: JUMP.equal, to: 'seed' },
      [0x31, 0xff, 0x48, 0x89, 0xe6], // xor edi, edi (CLOCK_REALTIME); mov rsi, rsp
      systemCall(227), // clock_settime
      [0x85, 0xc0], // test eax, eax
      { op: JUMP.notEqual, to: 'fail' },
      { label: 'seed' },
      { op: [0x48, 0x8d, 0x3d], to: 'path' }, // lea rdi, [rip + path]
      [0xbe, ...int32(2), 0x31, 0xd2], // mov esi, O_RDWR; xor edx, edx
      systemCall(2), // open
      [0x85, 0xc0], // test eax, eax
      { op: JUMP.negative, to: 'fail' },
      [0x41, 0x89, 0xc5, 0x44, 0x89, 0xef, 0x48, 0x8d, 0x74, 0x24, 16], // mov r13d, eax; mov edi, r13d; lea rsi, [rsp + 16]
      [0x4c, 0x89, 0xe2, 0x48, 0x83, 0xea, 16], // mov rdx, r12; sub rdx, 16
      systemCall(1), // write
      [0x44, 0x89, 0xef, 0xbe, ...int32(0x5207), 0x31, 0xd2], // mov edi, r13d; mov esi, RNDRESEEDCRNG; xor edx, edx
      systemCall(16), // ioctl
      [0x85, 0xc0], // test eax, eax
      { op: JUMP.notEqual, to: 'fail' },
      exit(0),
      { label: 'fail' },
      exit(1),
    ],
    { path: Buffer.from('/dev/urandom\0') },
  );
}
