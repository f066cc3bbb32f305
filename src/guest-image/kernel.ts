/** Debian's kernel package taken apart: the uncompressed kernel and the modules. */
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import { InfraletError } from '../base/errors.ts';
import { run } from '../base/process.ts';
import { isElf } from './elf.ts';

export interface Kernel {
  /** As `uname -r` will say. */
  readonly release: string;
  readonly vmlinux: Buffer;
  /** As boot loaders want it. */
  readonly bzImage: Buffer;
}

/**
 * Finds the one kernel below `tree` and unpacks it. QEMU starts the uncompressed kernel by its PVH entry, which saves the
 * guest from decompressing itself (0.7 s under emulation).
 */
export async function readKernel(tree: string): Promise<Kernel> {
  const names = (await readdir(join(tree, 'boot'))).filter((name) => name.startsWith('vmlinuz-'));
  const [name] = names;
  if (name === undefined || names.length > 1) {
    throw new InfraletError('FAILED_PRECONDITION', `expected one kernel in the packages, found ${names.length}`);
  }
  const bzImage = await readFile(join(tree, 'boot', name));
  return { release: name.slice('vmlinuz-'.length), vmlinux: unpack(bzImage), bzImage };
}

/** Takes the ELF kernel out of a bzImage (Documentation/arch/x86/boot.rst: payload_offset, payload_length). */
export function unpack(image: Buffer): Buffer {
  if (image.length < 0x250 || image.toString('latin1', 0x202, 0x206) !== 'HdrS') {
    throw new InfraletError('DATA_LOSS', 'the kernel is not a bzImage');
  }
  const start = ((image[0x1f1] ?? 0) + 1) * 512 + image.readUInt32LE(0x248);
  // The build appends four bytes with the unpacked size.
  const payload = image.subarray(start, start + image.readUInt32LE(0x24c) - 4);
  if (payload.length < 4 || payload.readUInt32LE(0) !== 0xfd2fb528) {
    throw new InfraletError('UNIMPLEMENTED', 'the kernel is not compressed with zstd, as Debian 13 does it');
  }
  const kernel = zstdDecompressSync(payload);
  if (!isElf(kernel)) throw new InfraletError('DATA_LOSS', 'the unpacked kernel is not an ELF file');
  return kernel;
}

export interface Module {
  /** Dashes are underscores, as the kernel has it. */
  readonly name: string;
  /** Relative to lib/modules/<release>, without compression's suffix. */
  readonly path: string;
  readonly data: Buffer;
  readonly depends: readonly string[];
  readonly aliases: readonly string[];
}

/** The modules of a kernel package, unpacked as they are asked for. */
export class ModuleSet {
  readonly #root: string;
  readonly #paths: ReadonlyMap<string, string>;
  readonly #loaded = new Map<string, Module>();

  private constructor(root: string, paths: ReadonlyMap<string, string>) {
    this.#root = root;
    this.#paths = paths;
  }

  static async open(tree: string, release: string): Promise<ModuleSet> {
    const root = join(tree, 'usr', 'lib', 'modules', release);
    const all = await readdir(root, { recursive: true });
    const paths = all.filter((path) => /\.ko(\.xz)?$/.test(path)).map((path) => [moduleName(path), path] as const);
    return new ModuleSet(root, new Map(paths));
  }

  /** `names` with everything they depend on, dependencies first, each once. */
  async closure(names: readonly string[], signal: AbortSignal): Promise<readonly Module[]> {
    const found = new Map<string, Module>();
    const add = async (name: string): Promise<void> => {
      const module = await this.#load(name, signal);
      if (found.has(module.name)) return;
      for (const needed of module.depends) await add(needed);
      found.set(module.name, module);
    };
    for (const name of names) await add(name);
    return [...found.values()];
  }

  async #load(name: string, signal: AbortSignal): Promise<Module> {
    const key = name.replaceAll('-', '_');
    const known = this.#loaded.get(key);
    if (known) return known;
    const path = this.#paths.get(key);
    if (path === undefined) {
      throw new InfraletError('NOT_FOUND', `the kernel has no module ${name}, which the recipe names or one needs`);
    }
    const file = join(this.#root, path);
    const data = path.endsWith('.xz') ? await unxz(file, signal) : await readFile(file);
    const module = { name: key, path: path.replace(/\.xz$/, ''), data, ...moduleInfo(data) };
    this.#loaded.set(key, module);
    return module;
  }
}

async function unxz(file: string, signal: AbortSignal): Promise<Buffer> {
  await run('xz', ['--decompress', '--force', file], { signal, timeoutMs: 60_000 });
  return await readFile(file.replace(/\.xz$/, ''));
}

function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.xz)?$/, '')
    .replaceAll('-', '_');
}

/** Reads the NUL-terminated `key=value` strings that modinfo shows. */
export function moduleInfo(data: Buffer): { readonly depends: readonly string[]; readonly aliases: readonly string[] } {
  const text = data.toString('latin1');
  const values = (key: string): string[] =>
    [...text.matchAll(new RegExp(`(?<=\\0)${key}=([\\x21-\\x7e]*)\\0`, 'g'))].map(([, value]) => value ?? '');
  return {
    depends: values('depends').flatMap((list) => list.split(',').filter((name) => name !== '')),
    aliases: [...new Set(values('alias'))],
  };
}
