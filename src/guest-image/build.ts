/**
 * `infralet image build`: from the recipe to a directory with kernel, initramfs, root, scratch base and manifest.
 * The image is made in a directory beside and moved to its place when it is complete.
 */
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import { warmCompileCache } from './compile-cache.ts';
import { digestFile, digestParts, digestUuid } from './digest.ts';
import { BOOT_FILES } from './disk-layout.ts';
import { makeInitramfs } from './initramfs.ts';
import { collectInputs, type Inputs } from './inputs.ts';
import { type Kernel, ModuleSet, readKernel } from './kernel.ts';
import {
  DISK_DIRECTORY,
  FILE_ROLES,
  type FileRole,
  type GuestManifest,
  type ImageFile,
  MANIFEST_FILE,
  readGuestManifest,
  SHARE_DIRECTORY,
} from './manifest.ts';
import { unpackPackages } from './packages.ts';
import { makePauseImage } from './pause.ts';
import { publish, staging } from './publish.ts';
import { assembleRoot, installPrograms, makeErofs } from './rootfs.ts';
import { makeScratch, preloadContainerd } from './scratch.ts';
import { writeSparse } from './sparse.ts';

const NAMES = {
  kernel: 'vmlinux',
  initramfs: 'initramfs.cpio',
  rootfs: 'rootfs.erofs',
  scratch: 'scratch.ext4',
} as const satisfies Record<FileRole, string>;

export interface BuildOptions {
  /** Where the image goes; an older image there is replaced. */
  readonly directory: string;
  /** Keeps downloaded packages between builds. @default /var/cache/infralet for root, else ~/.cache/infralet */
  readonly cacheDir?: string;
  /** Builds also when nothing changed here: fetches newer packages. */
  readonly force?: boolean;
  /** One line of text per step. */
  readonly onProgress: (line: string) => void;
  readonly signal: AbortSignal;
}

export interface BuildResult {
  readonly manifest: GuestManifest;
  /** True when the image that was there is made of the same inputs. */
  readonly cached: boolean;
}

export async function buildGuestImage(options: BuildOptions): Promise<BuildResult> {
  const started = performance.now();
  const directory = resolve(options.directory);
  const log = (line: string): void => {
    options.onProgress(`${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s  ${line}`);
  };
  const inputs = await collectInputs();
  if (options.force !== true) {
    const present = await current(directory, inputs);
    if (present) return { manifest: present, cached: true };
  }
  if (process.getuid?.() !== 0) {
    throw new InfraletError('PERMISSION_DENIED', 'building the guest image needs root: it unpacks devices and owners', {
      hint: 'sudo npm run infralet image build',
    });
  }
  await mkdir(dirname(directory), { recursive: true });
  await using work = await staging(directory);
  const made = await make(inputs, {
    workDir: work.path,
    cacheDir: cacheDirectory(options),
    log,
    signal: options.signal,
  });
  const manifest: GuestManifest = {
    ...made,
    buildSeconds: Math.round((performance.now() - started) / 100) / 10,
  };
  await writeFile(join(work.image, MANIFEST_FILE), `${JSON.stringify(manifest, undefined, 2)}\n`);
  options.signal.throwIfAborted();
  await publish(work.image, directory);
  const total = FILE_ROLES.reduce((sum, role) => sum + manifest.files[role].allocated, 0);
  log(`guest image ${manifest.imageDigest.slice(0, 12)} is ready, ${Math.round(total / 1e6)} MB`);
  return { manifest, cached: false };
}

export function cacheDirectory({ cacheDir }: Pick<BuildOptions, 'cacheDir'>): string {
  return cacheDir ?? (process.getuid?.() === 0 ? '/var/cache/infralet' : join(homedir(), '.cache/infralet'));
}

/** The manifest of the image in `directory` if it is made of these inputs; broken and other images are built anew. */
async function current(directory: string, inputs: Inputs): Promise<GuestManifest | undefined> {
  try {
    const manifest = await readGuestManifest(directory);
    return manifest.inputDigest === inputs.digest ? manifest : undefined;
  } catch (error) {
    if (error instanceof InfraletError && error.code === 'FAILED_PRECONDITION') return undefined;
    throw error;
  }
}

interface Context {
  readonly workDir: string;
  readonly cacheDir: string;
  readonly log: (line: string) => void;
  readonly signal: AbortSignal;
}

async function make(inputs: Inputs, context: Context): Promise<Omit<GuestManifest, 'buildSeconds'>> {
  const { recipe } = inputs;
  const { workDir, log, signal } = context;
  const image = join(workDir, 'image');
  const packages = join(workDir, 'packages');
  log(`Debian packages of ${recipe.suite}`);
  const { versions } = await unpackPackages({
    ...{ recipe, tree: packages, debs: join(context.cacheDir, 'debs'), workDir, log, signal },
  });
  const imageDigest = digestParts({ inputs: inputs.digest, packages: digestParts(versions) });
  const kernel = await readKernel(packages);
  log(`kernel ${kernel.release}, initramfs and root file system`);
  const uuid = digestUuid(imageDigest);
  await makeKernelFiles(inputs, kernel, packages, image, signal);
  await makeRoot(inputs, kernel, { ...context, packages, image, imageDigest, uuid });
  log('scratch disk with the pause image');
  await makeScratchDisk(inputs, { ...context, packages, image, uuid });
  await installPrograms(recipe.share, packages, join(image, SHARE_DIRECTORY));
  log('digests');
  const entries = await Promise.all(
    FILE_ROLES.map(async (role) => [role, await describe(image, NAMES[role], signal)] as const),
  );
  return {
    format: 1,
    inputDigest: inputs.digest,
    imageDigest,
    builtAt: new Date().toISOString(),
    architecture: recipe.architecture,
    suite: recipe.suite,
    versions: {
      kernel: kernel.release,
      containerd: versions['containerd'] ?? '',
      crun: versions['crun'] ?? '',
      node: inputs.node.version,
      agent: inputs.agentVersion,
    },
    packages: versions,
    commandLine: recipe.commandLine.common.trim(),
    commandLineTcg: recipe.commandLine.tcg.trim(),
    pauseImage: recipe.pause.reference,
    files: Object.fromEntries(entries) as GuestManifest['files'],
  };
}

async function makeKernelFiles(
  { recipe, recipeDir }: Inputs,
  kernel: Kernel,
  packages: string,
  image: string,
  signal: AbortSignal,
): Promise<void> {
  const modules = await ModuleSet.open(packages, kernel.release);
  const busybox = await readFile(join(packages, 'usr/bin/busybox'));
  const init = await readFile(join(recipeDir, 'initramfs-init'));
  const initramfs = async (names: readonly string[]): Promise<Buffer> =>
    makeInitramfs({ busybox, init, modules: await modules.closure(names, signal) });
  await writeFile(join(image, NAMES.initramfs), await initramfs(recipe.modules.initramfs));
  await writeSparse(join(image, NAMES.kernel), kernel.vmlinux);
  const disk = join(image, DISK_DIRECTORY);
  await mkdir(disk);
  await writeFile(join(disk, BOOT_FILES.initramfs), await initramfs(recipe.modules.disk));
  await writeFile(join(disk, BOOT_FILES.kernel), kernel.bzImage);
}

async function makeRoot(
  { recipe, recipeDir, node, agent }: Inputs,
  kernel: Kernel,
  at: Context & {
    readonly packages: string;
    readonly image: string;
    readonly imageDigest: string;
    readonly uuid: string;
  },
): Promise<void> {
  const { packages, signal } = at;
  const modules = await ModuleSet.open(packages, kernel.release);
  const loaded = await modules.closure(recipe.modules.initramfs, signal);
  const boot = await modules.closure(recipe.modules.boot, signal);
  const all = await modules.closure(
    [...recipe.modules.initramfs, ...recipe.modules.disk, ...recipe.modules.boot, ...recipe.modules.available],
    signal,
  );
  const root = join(at.workDir, 'root');
  await assembleRoot({
    ...{ recipe, packages, node: node.path, agent, kernelRelease: kernel.release, target: root, signal },
    overlay: join(recipeDir, 'rootfs'),
    bootModules: boot.filter(({ name }) => !loaded.some((other) => other.name === name)),
    modules: all,
  });
  await warmCompileCache({ root, workDir: at.workDir, signal });
  await writeFile(join(root, 'usr/lib/infralet/image-digest'), `${at.imageDigest}\n`);
  await makeErofs(root, join(at.image, NAMES.rootfs), at.uuid, signal);
}

async function makeScratchDisk(
  { recipe }: Inputs,
  at: Context & { readonly packages: string; readonly image: string; readonly uuid: string },
): Promise<void> {
  const { packages, workDir, image, uuid, signal } = at;
  const pauseImage = await makePauseImage({
    ...recipe.pause,
    program: await readFile(join(packages, recipe.pause.binary)),
    architecture: recipe.architecture,
  });
  const state = await preloadContainerd({ packages, workDir, pauseImage, reference: recipe.pause.reference, signal });
  await makeScratch(state, join(image, NAMES.scratch), { bytes: recipe.scratch.size, uuid, signal });
}

async function describe(directory: string, name: string, signal: AbortSignal): Promise<ImageFile> {
  const path = join(directory, name);
  const info = await stat(path);
  return { name, size: info.size, allocated: info.blocks * 512, sha256: await digestFile(path, signal) };
}
