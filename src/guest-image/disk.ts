/**
 * `infralet image build --target raw`: the guest image as one disk that boots by itself, by UEFI or by a legacy BIOS. GRUB of
 * the suite starts the same kernel either way; nothing on the disk but its boot loaders differs from what QEMU machines run.
 */
import { mkdir, open, readFile, rename, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { exists } from '../base/files.ts';
import { run } from '../base/process.ts';
import { type BuildOptions, buildGuestImage, cacheDirectory } from './build.ts';
import { digestUuid } from './digest.ts';
import { BOOT_FILES, type DiskLayout, layOut, SECTOR, sfdiskScript } from './disk-layout.ts';
import { DISK_DIRECTORY, type GuestManifest, readGuestManifest } from './manifest.ts';
import { unpackPackages } from './packages.ts';
import { staging } from './publish.ts';
import { RECIPE_DIR, readRecipe } from './recipe.ts';
import { copySparse } from './sparse.ts';

const DISK_FILE = 'disk.raw';
const TOOL_MS = 120_000;

/** Where boot.img keeps the first sector of GRUB's core, and the core's first sector where the rest of it begins. */
const BOOT_KERNEL_SECTOR = 0x5c;
const CORE_BLOCK_LIST = 0x1f4;
/** The rest of the first sector is the partition table's. */
const BOOT_CODE = 440;

const MODULES = ['part_gpt', 'fat', 'linux', 'search_fs_uuid', 'serial', 'terminal'];
const FIRMWARES = {
  bios: { format: 'i386-pc', modules: ['biosdisk'], file: 'core.img' },
  uefi: { format: 'x86_64-efi', modules: ['efi_gop'], file: 'boot.efi' },
} as const;

export interface DiskResult {
  readonly file: string;
  /** Bytes, holes counted. */
  readonly size: number;
  readonly manifest: GuestManifest;
  /** True when the disk that was there is made of the same inputs. */
  readonly cached: boolean;
}

/** @param out default: with the image, where it is kept until the image is built anew. */
export async function buildDisk(options: BuildOptions, out?: string): Promise<DiskResult> {
  const { signal, onProgress } = options;
  await buildGuestImage(options);
  const result = await diskOf(options);
  if (out === undefined) return result;
  onProgress(`copying the disk to ${out}`);
  await copyOut(result.file, out, signal);
  return { ...result, file: resolve(out) };
}

/** The file is the whole disk or not there. */
async function copyOut(file: string, out: string, signal: AbortSignal): Promise<void> {
  if ((await exists(out)) && !(await stat(out)).isFile()) {
    throw new InfraletError('FAILED_PRECONDITION', `${out} is no file`, {
      hint: 'write the disk to a file, and that to the device: holes of the file are zeros on the device',
    });
  }
  const part = `${out}.part`;
  try {
    await copySparse(file, part, signal);
    await rename(part, out);
  } finally {
    await rm(part, { force: true });
  }
}

/** The disk of the image that is in the directory, made unless it is there: it goes when the image is replaced. */
export async function diskOf(options: Omit<BuildOptions, 'force'>): Promise<DiskResult> {
  const directory = resolve(options.directory);
  const manifest = await readGuestManifest(directory);
  const file = join(directory, DISK_DIRECTORY, DISK_FILE);
  const cached = await exists(file);
  if (!cached) await makeDisk(manifest, directory, file, options);
  return { file, size: (await stat(file)).size, manifest, cached };
}

async function makeDisk(
  manifest: GuestManifest,
  directory: string,
  file: string,
  options: BuildOptions,
): Promise<void> {
  const { signal, onProgress } = options;
  const recipe = await readRecipe(RECIPE_DIR);
  const { rootfs, scratch } = manifest.files;
  const uuid = (name: string): string => digestUuid(`${manifest.imageDigest} ${name}`);
  const layout = layOut({ root: rootfs.size, scratch: scratch.size }, uuid);
  // Beside the kept file, so that it can be moved there.
  await using work = await staging(join(dirname(directory), `${basename(directory)}-disk`));
  const tree = join(work.path, 'tools');
  onProgress('boot loaders of the disk');
  await unpackPackages({
    ...{ recipe: { ...recipe, packages: recipe.disk.packages }, tree, workDir: work.path, log: onProgress, signal },
    debs: join(cacheDirectory(options), 'debs-disk'),
  });
  const tools = await openTools(tree, signal);
  const disk = join(tools.directory, DISK_FILE);
  await using handle = await open(disk, 'wx+');
  await handle.truncate(layout.size);
  await tools.run('usr/sbin/sfdisk', ['--quiet', tools.path(DISK_FILE)], sfdiskScript(layout));
  await makeEsp(tools, layout, join(directory, DISK_DIRECTORY), recipe.commandLine.disk.trim());
  await installBiosLoader(tools, tree, layout, disk);
  const { partitions } = layout;
  onProgress('file systems of the disk');
  await copySparse(join(tools.directory, ESP_FILE), disk, signal, partitions.esp.start);
  await copySparse(join(directory, rootfs.name), disk, signal, partitions.root.start);
  await copySparse(join(directory, scratch.name), disk, signal, partitions.scratch.start);
  await handle.sync();
  await rename(disk, file);
}

interface Tools {
  /** Of files that the tools work on. */
  readonly directory: string;
  /** How the tools call a file in it. */
  readonly path: (name: string) => string;
  readonly run: (program: string, args: readonly string[], input?: string) => Promise<string>;
}

/** The tools run in their own tree, whatever this host has. */
async function openTools(tree: string, signal: AbortSignal): Promise<Tools> {
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
    await symlink(`usr/${name}`, join(tree, name)).catch((error: unknown) => {
      if (!hasErrno(error, 'EEXIST')) throw error;
    });
  }
  const directory = join(tree, 'work');
  await mkdir(directory);
  return {
    directory,
    path: (name) => `/work/${name}`,
    run: async (program, args, input) =>
      await run('chroot', [tree, `/${program}`, ...args], {
        signal,
        timeoutMs: TOOL_MS,
        // For equal times in equal file systems.
        env: { SOURCE_DATE_EPOCH: '0', TZ: 'UTC', LC_ALL: 'C' },
        ...(input === undefined ? {} : { input }),
      }),
  };
}

const ESP_FILE = 'esp.fat';

/** Loaders, kernel and initramfs; GRUB finds them by the file system's serial number. */
async function makeEsp(tools: Tools, layout: DiskLayout, boot: string, commandLine: string): Promise<void> {
  const serial = layout.partitions.esp.uuid.slice(0, 8).toUpperCase();
  const script = [
    'serial --unit=0 --speed=115200',
    'terminal_output serial console',
    `search.fs_uuid ${serial.slice(0, 4)}-${serial.slice(4)} root`,
    `linux /${BOOT_FILES.kernel} ${commandLine}`,
    `initrd /${BOOT_FILES.initramfs}`,
    'boot',
  ];
  await writeFile(join(tools.directory, 'grub.cfg'), `${script.join('\n')}\n`);
  for (const { format, modules, file } of Object.values(FIRMWARES)) {
    await tools.run('usr/bin/grub-mkimage', [
      ...['-O', format, '-o', tools.path(file), '-p', '/', '-c', tools.path('grub.cfg')],
      ...[...MODULES, ...modules],
    ]);
  }
  const esp = join(tools.directory, ESP_FILE);
  await writeFile(esp, '');
  await using handle = await open(esp, 'r+');
  await handle.truncate(layout.partitions.esp.size);
  await tools.run('usr/sbin/mkfs.fat', ['-F', '32', '-n', 'INFRALET', '-i', serial, tools.path(ESP_FILE)]);
  const image = ['-i', tools.path(ESP_FILE)];
  await tools.run('usr/bin/mmd', [...image, '::/EFI', '::/EFI/BOOT']);
  for (const name of Object.values(BOOT_FILES)) {
    await writeFile(join(tools.directory, name), await readFile(join(boot, name)));
  }
  const files = { [FIRMWARES.uefi.file]: 'EFI/BOOT/BOOTX64.EFI', ...Object.fromEntries(bootFiles()) };
  for (const [name, target] of Object.entries(files)) {
    await utimes(join(tools.directory, name), 0, 0);
    await tools.run('usr/bin/mcopy', ['-m', ...image, tools.path(name), `::/${target}`]);
  }
}

function bootFiles(): readonly (readonly [string, string])[] {
  return Object.values(BOOT_FILES).map((name) => [name, name]);
}

/** What grub-bios-setup does, which needs the disk as a device: sector 0 loads the core, the core its own rest. */
async function installBiosLoader(tools: Tools, tree: string, { partitions }: DiskLayout, disk: string): Promise<void> {
  const first = BigInt(partitions.bios.start / SECTOR);
  const bootImage = (await readFile(join(tree, 'usr/lib/grub/i386-pc/boot.img'))).subarray(0, BOOT_CODE);
  const core = await readFile(join(tools.directory, FIRMWARES.bios.file));
  if (core.length > partitions.bios.size) {
    throw new InfraletError(
      'INTERNAL',
      `GRUB's core has ${core.length} bytes; there is room for ${partitions.bios.size}`,
    );
  }
  bootImage.writeBigUInt64LE(first, BOOT_KERNEL_SECTOR);
  core.writeBigUInt64LE(first + 1n, CORE_BLOCK_LIST);
  await using handle = await open(disk, 'r+');
  await handle.write(bootImage, 0, BOOT_CODE, 0);
  await handle.write(core, 0, core.length, partitions.bios.start);
}
