/** The initramfs: busybox, our init and the modules that find the disks. Uncompressed, as unpacking it costs guest time. */
import type { CpioEntry } from './cpio.ts';
import { cpio } from './cpio.ts';
import type { Module } from './kernel.ts';

const APPLETS = ['insmod', 'mount', 'poweroff', 'sh', 'switch_root', 'usleep'];

export function makeInitramfs(parts: {
  /** Statically linked busybox. */
  readonly busybox: Uint8Array;
  readonly init: Uint8Array;
  /** In loading order. */
  readonly modules: readonly Module[];
}): Buffer {
  const directories = ['bin', 'dev', 'modules', 'proc', 'root', 'sys'];
  const files = parts.modules.map(({ name, data }) => ({ name: `${name}.ko`, data }));
  const list = Buffer.from(files.map(({ name }) => `${name}\n`).join(''));
  return cpio([
    ...directories.map((path): CpioEntry => ({ path, kind: 'directory' })),
    // The kernel opens the console before devtmpfs is mounted.
    { path: 'dev/console', kind: 'device', major: 5, minor: 1 },
    { path: 'init', kind: 'file', mode: 0o755, data: parts.init },
    { path: 'bin/busybox', kind: 'file', mode: 0o755, data: parts.busybox },
    ...APPLETS.map((applet): CpioEntry => ({ path: `bin/${applet}`, kind: 'symlink', target: 'busybox' })),
    { path: 'modules/list', kind: 'file', mode: 0o644, data: list },
    ...files.map(({ name, data }): CpioEntry => ({ path: `modules/${name}`, kind: 'file', mode: 0o644, data })),
  ]);
}
