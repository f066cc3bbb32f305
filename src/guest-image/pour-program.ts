/**
 * The guest's `pour` program: `pour BYTES` passes so many bytes on from standard input to standard output, fewer when the
 * input ends. What comes is gathered for some milliseconds: a container's log arrives line by line, and an emulated machine
 * spends more on a line's way through a program than on the line. Exit code 0 unless something could not be read or written.
 */
import { exit, int32, JUMP, machineProgram, systemCall } from './machine-code.ts';

const BUFFER = 64 * 1024;
/** What the pipe holds meanwhile: at a higher pace it is the pipe that is waited for. */
const PIPE = 256 * 1024;
const GATHER_NS = 10_000_000n;
const F_SETPIPE_SZ = 1031;

export function pourProgram(): Buffer {
  const pause = Buffer.alloc(16);
  pause.writeBigInt64LE(GATHER_NS, 8);
  return machineProgram(
    [
      // The number: argv[1], or nothing is passed on. [rsp] is argc, [rsp + 16] argv[1].
      [0x48, 0x83, 0x3c, 0x24, 2], // cmp qword [rsp], 2
      { op: JUMP.notEqual, to: 'fail' },
      [0x48, 0x8b, 0x74, 0x24, 16, 0x45, 0x31, 0xe4], // mov rsi, [rsp + 16]; xor r12d, r12d: bytes still to pass on
      { label: 'digit' },
      [0x0f, 0xb6, 0x06, 0x85, 0xc0], // movzx eax, byte [rsi]; test eax, eax
      { op: JUMP.equal, to: 'number' },
      [0x83, 0xe8, 0x30, 0x83, 0xf8, 10], // sub eax, '0'; cmp eax, 10
      { op: [0x0f, 0x83], to: 'fail' }, // jae
      [0x4d, 0x6b, 0xe4, 10, 0x49, 0x01, 0xc4, 0x48, 0xff, 0xc6], // imul r12, r12, 10; add r12, rax; inc rsi
      { op: JUMP.always, to: 'digit' },
      { label: 'number' },
      [0x48, 0x81, 0xec, ...int32(BUFFER + 64)], // sub rsp, BUFFER + 64
      // Helps where the input is a pipe, and is refused where it is none.
      [0x31, 0xff, 0xbe, ...int32(F_SETPIPE_SZ), 0xba, ...int32(PIPE)], // xor edi, edi; mov esi, F_SETPIPE_SZ; mov edx, PIPE
      systemCall(72), // fcntl
      { label: 'read' },
      [0x4d, 0x85, 0xe4], // test r12, r12
      { op: JUMP.equal, to: 'end' },
      [0x41, 0xbd, ...int32(BUFFER), 0x4d, 0x39, 0xe5, 0x4d, 0x0f, 0x47, 0xec], // mov r13d, BUFFER; cmp r13, r12; cmova r13, r12
      [0x31, 0xff, 0x48, 0x89, 0xe6, 0x4c, 0x89, 0xea], // xor edi, edi; mov rsi, rsp; mov rdx, r13
      systemCall(0), // read
      [0x48, 0x85, 0xc0], // test rax, rax
      { op: JUMP.negative, to: 'fail' },
      { op: JUMP.equal, to: 'end' },
      [0x49, 0x29, 0xc4, 0x49, 0x89, 0xc6, 0x49, 0x89, 0xe7], // sub r12, rax; mov r14, rax: to be written; mov r15, rsp: from here
      [0x49, 0x29, 0xc5], // sub r13, rax: how much more was asked for
      { label: 'write' },
      [0xbf, ...int32(1), 0x4c, 0x89, 0xfe, 0x4c, 0x89, 0xf2], // mov edi, 1; mov rsi, r15; mov rdx, r14
      systemCall(1), // write
      [0x48, 0x85, 0xc0], // test rax, rax
      { op: JUMP.lessOrEqual, to: 'fail' },
      [0x49, 0x01, 0xc7, 0x49, 0x29, 0xc6], // add r15, rax; sub r14, rax
      { op: JUMP.notEqual, to: 'write' },
      // A full read: more is there already.
      [0x4d, 0x85, 0xed], // test r13, r13
      { op: JUMP.equal, to: 'read' },
      { op: [0x48, 0x8d, 0x3d], to: 'pause' }, // lea rdi, [rip + pause]
      [0x31, 0xf6], // xor esi, esi
      systemCall(35), // nanosleep
      { op: JUMP.always, to: 'read' },
      { label: 'end' },
      exit(0),
      { label: 'fail' },
      exit(1),
    ],
    { pause },
  );
}
