/**
 * The guest's `set-up-pod` program: gives the namespaces that it runs in a host name and sends a batch of messages to the
 * kernel's rtnetlink. A template starts it in its pod sandbox, and there it waits for its input: what a clone's pod gets
 * costs no start of a program then.
 *
 * Standard input until its end: the lengths of name and messages as two 32-bit little-endian numbers, the name, the messages.
 * Standard output: the kernel's answers to them. Exit code 0 when all was sent; whether the kernel liked it, the answers say.
 */
import { exit, int32, JUMP, machineProgram, systemCall } from './machine-code.ts';

/** Of the whole input; a pod has a few hundred bytes, and the agent bounds its lists. */
const BUFFER = 64 * 1024;

export function podSetupProgram(): Buffer {
  return machineProgram([
    [0x48, 0x81, 0xec, ...int32(BUFFER + 64)], // sub rsp, BUFFER + 64
    [0x45, 0x31, 0xff], // xor r15d, r15d: bytes read so far
    { label: 'read' },
    [0x31, 0xff, 0x4a, 0x8d, 0x34, 0x3c], // xor edi, edi; lea rsi, [rsp + r15]
    [0xba, ...int32(BUFFER), 0x44, 0x29, 0xfa], // mov edx, BUFFER; sub edx, r15d
    { op: JUMP.equal, to: 'fail' },
    systemCall(0), // read
    [0x85, 0xc0], // test eax, eax
    { op: JUMP.negative, to: 'fail' },
    { op: JUMP.equal, to: 'complete' },
    [0x41, 0x01, 0xc7], // add r15d, eax
    { op: JUMP.always, to: 'read' },
    { label: 'complete' },
    [0x41, 0x83, 0xff, 8], // cmp r15d, 8
    { op: JUMP.below, to: 'fail' },
    [0x44, 0x8b, 0x24, 0x24, 0x44, 0x8b, 0x6c, 0x24, 4], // mov r12d, [rsp]; mov r13d, [rsp + 4]
    [0x4b, 0x8d, 0x44, 0x2c, 8, 0x4c, 0x39, 0xf8], // lea rax, [r12 + r13 + 8]; cmp rax, r15
    { op: JUMP.notEqual, to: 'fail' },
    [0x48, 0x8d, 0x7c, 0x24, 8, 0x44, 0x89, 0xe6], // lea rdi, [rsp + 8]; mov esi, r12d
    systemCall(170), // sethostname
    [0x85, 0xc0], // test eax, eax
    { op: JUMP.notEqual, to: 'fail' },
    [0xbf, ...int32(16), 0xbe, ...int32(3), 0x31, 0xd2], // mov edi, AF_NETLINK; mov esi, SOCK_RAW; xor edx, edx (NETLINK_ROUTE)
    systemCall(41), // socket
    [0x85, 0xc0], // test eax, eax
    { op: JUMP.negative, to: 'fail' },
    [0x41, 0x89, 0xc6, 0x44, 0x89, 0xf7], // mov r14d, eax; mov edi, r14d
    [0x4a, 0x8d, 0x74, 0x24, 8, 0x44, 0x89, 0xea], // lea rsi, [rsp + r12 + 8]; mov edx, r13d
    systemCall(1), // write
    [0x44, 0x39, 0xe8], // cmp eax, r13d
    { op: JUMP.notEqual, to: 'fail' },
    // The kernel has answered all of it when it has taken it.
    { label: 'answers' },
    [0x44, 0x89, 0xf7, 0x48, 0x89, 0xe6, 0xba, ...int32(BUFFER)], // mov edi, r14d; mov rsi, rsp; mov edx, BUFFER
    [0x41, 0xba, ...int32(0x40), 0x45, 0x31, 0xc0, 0x45, 0x31, 0xc9], // mov r10d, MSG_DONTWAIT; xor r8d, r8d; xor r9d, r9d
    systemCall(45), // recvfrom
    [0x85, 0xc0], // test eax, eax
    { op: JUMP.lessOrEqual, to: 'end' },
    [0xbf, ...int32(1), 0x48, 0x89, 0xe6, 0x89, 0xc2], // mov edi, 1; mov rsi, rsp; mov edx, eax
    systemCall(1), // write
    { op: JUMP.always, to: 'answers' },
    { label: 'end' },
    exit(0),
    { label: 'fail' },
    exit(1),
  ]);
}
