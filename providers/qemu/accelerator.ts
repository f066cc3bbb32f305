/**
 * Chooses between KVM and software emulation. The device node proves nothing: there are hosts on which /dev/kvm opens,
 * makes machines and then never gets a guest through its boot. So a tiny guest is booted once with the real kernel and the
 * real machine type, under a time limit, and the verdict is kept until something that matters changes.
 */
import { open, readFile, stat } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { errorMessage, hasErrno, InfraletError } from '../../src/base/errors.ts';
import { writeFileAtomic } from '../../src/base/files.ts';
import { run, tryRun } from '../../src/base/process.ts';
import { platform } from './arguments.ts';
import type { QemuConfig } from './config.ts';
import type { GuestImage } from './guest-image.ts';
import { MARKER, tinyInitramfs } from './tiny-guest.ts';

export interface Verdict {
  readonly kvm: boolean;
  /** Why, for `doctor`. */
  readonly detail: string;
}

const cacheSchema = z.object({ key: z.string(), kvm: z.boolean(), detail: z.string() });

/** First line of --version, such as "QEMU emulator version 7.2.22 (…)". */
export async function qemuVersion(config: QemuConfig, signal: AbortSignal): Promise<string> {
  const text = await run(config.binary, ['--version'], { signal, timeoutMs: config.readyTimeout });
  return text.split('\n')[0] ?? '';
}

/** The cached verdict, or a fresh one by a probe, which takes up to `probeTimeout`. */
export async function probeKvm(
  stateDir: string,
  image: GuestImage,
  config: QemuConfig,
  signal: AbortSignal,
): Promise<Verdict> {
  const closed = await deviceProblem();
  if (closed !== undefined) return { kvm: false, detail: closed };
  const cachePath = join(stateDir, 'kvm-probe.json');
  const key = await cacheKey(image, config, signal);
  const cached = await readCache(cachePath);
  if (cached?.key === key) return cached;
  const verdict = await boot(stateDir, image, config, signal);
  await writeFileAtomic(cachePath, `${JSON.stringify({ key, ...verdict }, undefined, 1)}\n`);
  return verdict;
}

async function boot(stateDir: string, image: GuestImage, config: QemuConfig, signal: AbortSignal): Promise<Verdict> {
  const initramfs = join(stateDir, 'kvm-probe.cpio');
  await writeFileAtomic(initramfs, tinyInitramfs());
  const started = performance.now();
  try {
    const result = await tryRun(
      config.binary,
      [
        platform('kvm', config),
        '-smp 1 -m 128M -no-reboot -serial stdio'.split(' '),
        ['-kernel', image.kernel, '-initrd', initramfs, '-append', 'console=ttyS0 quiet panic=-1 reboot=t'],
      ].flat(),
      { signal, timeoutMs: config.probeTimeout },
    );
    const ms = Math.round(performance.now() - started);
    if (result.stdout.includes(MARKER)) return { kvm: true, detail: `a guest booted in ${ms} ms` };
    const said = (result.stderr.trim() || result.stdout.trim()).slice(-300);
    return { kvm: false, detail: `a guest did not boot: ${said || `exit code ${result.exitCode}`}` };
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof InfraletError && error.code === 'DEADLINE_EXCEEDED') {
      return { kvm: false, detail: `/dev/kvm is there, but a guest did not boot within ${config.probeTimeout} ms` };
    }
    // Emulators have been seen to abort on a half-working /dev/kvm: that is an answer, too.
    const how = /^.*?(?=: qemu|: \/|$)/.exec(errorMessage(error).replace(`${config.binary}: `, ''))?.[0] ?? '';
    return { kvm: false, detail: `/dev/kvm is there, but the emulator fails with it: ${how}` };
  }
}

async function deviceProblem(): Promise<string | undefined> {
  try {
    await (await open('/dev/kvm', 'r+')).close();
    return undefined;
  } catch (error) {
    return hasErrno(error, 'ENOENT') ? 'there is no /dev/kvm' : `/dev/kvm cannot be opened: ${errorMessage(error)}`;
  }
}

/** All on which the verdict depends. */
async function cacheKey(image: GuestImage, config: QemuConfig, signal: AbortSignal): Promise<string> {
  const [version, cpus, kernel] = await Promise.all([
    qemuVersion(config, signal),
    readFile('/proc/cpuinfo', 'utf8'),
    stat(image.kernel),
  ]);
  const model = /^model name\s*:\s*(.*)$/m.exec(cpus)?.[1] ?? '';
  const guest = `${kernel.size}@${Math.round(kernel.mtimeMs)}`;
  return JSON.stringify([release(), version, config.binary, model, config.cpuModelKvm, guest, config.probeTimeout]);
}

async function readCache(path: string): Promise<z.output<typeof cacheSchema> | undefined> {
  try {
    return cacheSchema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    // Absent or broken: the probe is repeated, which is all that a cache may cost.
    return undefined;
  }
}
