/** What the provider needs of a guest image directory. The manifest is the builder's; only a few fields of it matter here. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { errorMessage, hasErrno, InfraletError } from '../../src/base/errors.ts';

export interface GuestImage {
  readonly kernel: string;
  readonly initramfs: string;
  readonly rootfs: string;
  /** Base of the scratch disk; machines write to an overlay. */
  readonly scratch: string;
  /** Size of that base in bytes. */
  readonly scratchBytes: number;
  readonly commandLine: string;
  /** Added to it under software emulation. */
  readonly commandLineTcg: string;
  /** Changes whenever any file of the image does. */
  readonly identity: string;
}

const file = z.object({ name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/) });
const manifestSchema = z.object({
  commandLine: z.string().max(2048),
  commandLineTcg: z.string().max(2048),
  imageDigest: z.string().max(128).default(''),
  files: z.object({ kernel: file, initramfs: file, rootfs: file, scratch: file }),
});
const FIX = 'build it: infralet image build';

/** Throws FAILED_PRECONDITION when the image is absent or incomplete. */
export async function readGuestImage(dir: string): Promise<GuestImage> {
  const { commandLine, commandLineTcg, files, imageDigest } = await manifest(dir);
  const [kernel, initramfs, rootfs, scratch] = await Promise.all([
    existing(dir, files.kernel.name),
    existing(dir, files.initramfs.name),
    existing(dir, files.rootfs.name),
    existing(dir, files.scratch.name),
  ]);
  return {
    kernel: kernel.path,
    initramfs: initramfs.path,
    rootfs: rootfs.path,
    scratch: scratch.path,
    scratchBytes: scratch.bytes,
    commandLine,
    commandLineTcg,
    identity: [imageDigest, ...[kernel, initramfs, rootfs, scratch].map(({ stamp }) => stamp)].join(' '),
  };
}

async function manifest(dir: string): Promise<z.output<typeof manifestSchema>> {
  try {
    return manifestSchema.parse(JSON.parse(await readFile(join(dir, 'manifest.json'), 'utf8')));
  } catch (error) {
    const what = hasErrno(error, 'ENOENT')
      ? `there is no guest image in ${dir}`
      : `the manifest of the guest image in ${dir} is unreadable: ${errorMessage(error)}`;
    throw new InfraletError('FAILED_PRECONDITION', what, { cause: error, hint: FIX });
  }
}

async function existing(dir: string, name: string) {
  const path = join(dir, name);
  try {
    const { size, mtimeMs, ino } = await stat(path);
    return { path, bytes: size, stamp: `${name}:${ino}:${size}@${mtimeMs}` };
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
    throw new InfraletError('FAILED_PRECONDITION', `the guest image in ${dir} lacks ${name}`, {
      cause: error,
      hint: FIX,
    });
  }
}
