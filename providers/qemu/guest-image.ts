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
}

const manifestSchema = z.object({ commandLine: z.string().max(2048) });
const FIX = 'build it: infralet image build';

/** Throws FAILED_PRECONDITION when the image is absent or incomplete. */
export async function readGuestImage(dir: string): Promise<GuestImage> {
  const { commandLine } = await manifest(dir);
  const kernel = (await existing(dir, 'vmlinux')) ?? (await existing(dir, 'vmlinuz'));
  const initramfs = await existing(dir, 'initramfs.cpio');
  const rootfs = await existing(dir, 'rootfs.erofs');
  const scratch = await existing(dir, 'scratch.ext4');
  if (!kernel || !initramfs || !rootfs || !scratch) {
    throw new InfraletError('FAILED_PRECONDITION', `the guest image in ${dir} is incomplete`, { hint: FIX });
  }
  return { kernel, initramfs, rootfs, scratch, scratchBytes: (await stat(scratch)).size, commandLine };
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

async function existing(dir: string, name: string): Promise<string | undefined> {
  const path = join(dir, name);
  try {
    await stat(path);
    return path;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
