/**
 * The frequency of this host's time stamp counter. An emulated guest reads the host's counter, but has no reliable way to
 * measure its speed: its kernel then calls the clock unstable and, on this machine type, hangs. So the host measures and
 * tells it (kernel parameter tsc_early_khz).
 */

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { arch } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { hasErrno } from '../../src/base/errors.ts';
import { staticProgram } from '../../src/base/static-program.ts';

/** Measurements taken; the one that the scheduler disturbed least counts. */
const ROUNDS = 3;
/** Nanoseconds between the two readings of a measurement: long enough for some parts in a million. */
const INTERVAL_NS = 100_000_000;
const TIMEOUT_MS = 5000;

/** kHz; undefined where there is no such counter. */
export async function tscKhz(workDir: string, signal: AbortSignal): Promise<number | undefined> {
  if (arch() !== 'x64') return undefined;
  // A name of its own: two daemons, or a daemon and its test, may measure at once.
  const program = join(workDir, `tsc-probe-${randomBytes(6).toString('hex')}`);
  try {
    await writeFile(program, staticProgram(Buffer.from(probe())), { mode: 0o700 });
    const rounds: Buffer[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const { stdout } = await promisify(execFile)(program, { encoding: 'buffer', timeout: TIMEOUT_MS, signal });
      rounds.push(stdout);
    }
    return bestFrequency(rounds);
  } catch (error) {
    signal.throwIfAborted();
    // A state directory on a file system without programs; the kernel's figure is nearly as good.
    // ETXTBSY: another program was started just while this one was written, and still holds the file open.
    if (hasErrno(error, 'EACCES', 'EPERM', 'ETXTBSY')) return await nominalKhz();
    throw error;
  } finally {
    await rm(program, { force: true });
  }
}

/** From readings of [counter, seconds, nanoseconds, counter] twice: the round whose readings took the fewest ticks. Pure. */
export function bestFrequency(rounds: readonly Buffer[]): number {
  const measured = rounds.map((round) => {
    const word = (index: number): number => Number(round.readBigUInt64LE(index * 8));
    const [before, after] = [0, 4].map((base) => ({
      ticks: (word(base) + word(base + 3)) / 2,
      ns: word(base + 1) * 1e9 + word(base + 2),
      blur: word(base + 3) - word(base),
    }));
    if (!before || !after) return { khz: 0, blur: Number.POSITIVE_INFINITY };
    return { khz: ((after.ticks - before.ticks) * 1e6) / (after.ns - before.ns), blur: before.blur + after.blur };
  });
  const best = measured.toSorted((a, b) => a.blur - b.blur)[0];
  return Math.round(best?.khz ?? 0);
}

async function nominalKhz(): Promise<number | undefined> {
  const mhz = /^cpu MHz\s*:\s*([\d.]+)$/m.exec(await readFile('/proc/cpuinfo', 'utf8'))?.[1];
  return mhz === undefined ? undefined : Math.round(Number(mhz) * 1000);
}

/** Reads counter, raw monotonic clock and counter again; sleeps; reads once more; writes the 64 bytes to stdout. */
function probe(): readonly number[] {
  const counter = (slot: number): readonly number[] =>
    [
      [0x0f, 0x31], // rdtsc
      [0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0], // shl rdx, 32; or rax, rdx
      [0x48, 0x89, 0x44, 0x24, slot * 8], // mov [rsp + slot * 8], rax
    ].flat();
  const reading = (slot: number): readonly number[] =>
    [
      counter(slot),
      [0xb8, 228, 0, 0, 0, 0xbf, 4, 0, 0, 0], // mov eax, SYS_clock_gettime; mov edi, CLOCK_MONOTONIC_RAW
      [0x48, 0x8d, 0x74, 0x24, (slot + 1) * 8, 0x0f, 0x05], // lea rsi, [rsp + (slot + 1) * 8]; syscall
      counter(slot + 3),
    ].flat();
  const interval = Buffer.alloc(4);
  interval.writeInt32LE(INTERVAL_NS);
  return [
    [0x48, 0x83, 0xec, 0x60], // sub rsp, 96
    reading(0),
    [0x48, 0xc7, 0x44, 0x24, 0x40, 0, 0, 0, 0], // mov qword [rsp + 64], 0
    [0x48, 0xc7, 0x44, 0x24, 0x48, ...interval], // mov qword [rsp + 72], interval
    [0xb8, 35, 0, 0, 0, 0x48, 0x8d, 0x7c, 0x24, 0x40], // mov eax, SYS_nanosleep; lea rdi, [rsp + 64]
    [0x31, 0xf6, 0x0f, 0x05], // xor esi, esi; syscall
    reading(4),
    [0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0x48, 0x89, 0xe6], // mov eax, SYS_write; mov edi, 1; mov rsi, rsp
    [0xba, 64, 0, 0, 0, 0x0f, 0x05], // mov edx, 64; syscall
    [0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05], // mov eax, SYS_exit; xor edi, edi; syscall
  ].flat();
}
