/**
 * The smallest guest that proves a kernel runs programs: an initramfs whose only file is an init of some hundred bytes,
 * which prints a marker and reboots. Made here so that the probe of KVM needs nothing that is not installed anyway.
 */
import { staticProgram } from '../../src/base/static-program.ts';

/** Printed on the console by the tiny guest's init. */
export const MARKER = 'infralet: a guest runs here';

/** A cpio archive (newc) with the init program. */
export function tinyInitramfs(): Buffer {
  return Buffer.concat([cpioEntry('init', 0o100755, initProgram()), cpioEntry('TRAILER!!!', 0, Buffer.alloc(0))]);
}

/** write(1, marker), wait until the console has sent it, reboot. */
function initProgram(): Buffer {
  const message = Buffer.from(`\n${MARKER}\n`);
  const before = [0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0]; // mov eax, SYS_write; mov edi, 1
  const after = [
    [0x0f, 0x05], // syscall
    [0xb8, 16, 0, 0, 0, 0xbf, 1, 0, 0, 0], // mov eax, SYS_ioctl; mov edi, 1
    [0xbe, 0x09, 0x54, 0, 0, 0xba, 1, 0, 0, 0, 0x0f, 0x05], // mov esi, TCSBRK; mov edx, 1; syscall: drain
    [0xb8, 169, 0, 0, 0, 0xbf, 0xad, 0xde, 0xe1, 0xfe], // mov eax, SYS_reboot; mov edi, magic 1
    [0xbe, 0x69, 0x19, 0x12, 0x28, 0xba, 0x67, 0x45, 0x23, 0x01], // mov esi, magic 2; mov edx, RESTART
    [0x45, 0x31, 0xd2, 0x0f, 0x05, 0xeb, 0xfe], // xor r10d, r10d; syscall; jmp to itself
  ].flat();
  const load = Buffer.from([0x48, 0x8d, 0x35, 0, 0, 0, 0, 0xba, 0, 0, 0, 0]); // lea rsi, [rip + x]; mov edx, length
  // The displacement counts from the end of the lea: the mov after it (5 bytes) and the rest lie in between.
  load.writeInt32LE(5 + after.length, 3);
  load.writeInt32LE(message.length, 8);
  return staticProgram(Buffer.concat([Buffer.from(before), load, Buffer.from(after), message]));
}

function cpioEntry(name: string, mode: number, content: Buffer): Buffer {
  const field = (value: number): string => value.toString(16).padStart(8, '0');
  const numbers = [1, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length + 1, 0];
  const head = Buffer.from(`070701${numbers.map(field).join('')}${name}\0`);
  return Buffer.concat([padded(head), padded(content)]);
}

function padded(part: Buffer): Buffer {
  return Buffer.concat([part, Buffer.alloc((4 - (part.length % 4)) % 4)]);
}
