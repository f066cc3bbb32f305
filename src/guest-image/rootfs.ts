/** Puts the guest's root together: named files of the packages, the libraries they need, Node, the agent, our own files. */
import { chmod, cp, mkdir, readFile, realpath, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { run } from '../base/process.ts';
import { AGENT_NODE_FLAGS } from './agent-bundle.ts';
import { dependencies, isElf, strip } from './elf.ts';
import type { Module } from './kernel.ts';
import { podSetupProgram } from './pod-setup-program.ts';
import { pourProgram } from './pour-program.ts';
import type { Recipe } from './recipe.ts';
import { refreshProgram } from './refresh-program.ts';

const LIBRARY_DIRS = ['usr/lib/x86_64-linux-gnu', 'usr/lib', 'usr/lib64', 'usr/lib/ganesha'];

const DIRECTORIES = ['dev', 'proc', 'sys', 'run', 'tmp', 'scratch', 'root', 'etc/cni', 'usr/lib/infralet', 'var/lib'];

/** Everything that programs write goes to memory (/run) or to the scratch disk. */
const LINKS = {
  bin: 'usr/bin',
  sbin: 'usr/bin',
  lib: 'usr/lib',
  lib64: 'usr/lib64',
  'usr/sbin': 'bin',
  'var/run': '/run',
  'var/tmp': '/scratch/tmp',
  'var/log': '/run/log',
  'var/lib/cni': '/run/cni',
  'var/lib/containerd': '/scratch/containerd',
  'etc/cni/net.d': '/run/cni/net.d',
  'etc/machine-id': '/run/machine-id',
  'etc/mtab': '/proc/self/mounts',
} as const;

/** Programs that are made here, for want of one in Debian that does as little. */
const OWN_PROGRAMS = { refresh: refreshProgram, 'set-up-pod': podSetupProgram, pour: pourProgram } as const;

/** Applets of busybox that init, the shell of an operator on the console and the kernel (modprobe) call by name. */
const APPLETS = (
  'awk basename cat chmod chown cmp cp cut date dd df dirname dmesg du echo env false find free grep halt head hostname id ' +
  'ifconfig init insmod ip kill ln ls lsmod mkdir mknod modprobe mount mv nc netstat nsenter ping poweroff ps pwd ' +
  'readlink reboot rm rmdir rmmod sed sh sleep sort stat sync sysctl tail tar test top touch tr true udhcpc umount uname uptime ' +
  'usleep vi wc which xargs'
).split(' ');

export async function assembleRoot(options: {
  readonly recipe: Recipe;
  /** Unpacked packages. */
  readonly packages: string;
  /** The recipe's own files, laid over everything. */
  readonly overlay: string;
  readonly node: string;
  readonly agent: Uint8Array;
  readonly kernelRelease: string;
  readonly bootModules: readonly Module[];
  readonly modules: readonly Module[];
  readonly target: string;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { recipe, packages, target } = options;
  for (const directory of [...DIRECTORIES, 'usr/bin', 'usr/lib64'])
    await mkdir(join(target, directory), { recursive: true });
  for (const [path, to] of Object.entries(LINKS)) await symlink(to, join(target, path));
  await chmod(join(target, 'root'), 0o700);
  await chmod(join(target, 'tmp'), 0o1777);
  const moved = Object.entries(recipe.moved).map(([to, from]) => ({ from: join(packages, from), to }));
  await installPrograms(recipe.files, packages, target, [{ from: options.node, to: 'usr/bin/node' }, ...moved]);
  await linkApplets(target, options.signal);
  await writeFile(join(target, 'usr/lib/infralet/agent.cjs'), options.agent);
  await writeFile(join(target, 'usr/lib/infralet/node-flags'), `${AGENT_NODE_FLAGS.join(' ')}\n`);
  for (const [name, program] of Object.entries(OWN_PROGRAMS))
    await writeFile(join(target, 'usr/lib/infralet', name), program(), { mode: 0o755 });
  await installModules(options.kernelRelease, options.modules, options.bootModules, target);
  // cp keeps modes and symlinks; owners become root in the file system image.
  await cp(options.overlay, target, { recursive: true, verbatimSymlinks: true, force: true });
  options.signal.throwIfAborted();
}

/** Debian's busybox does not have every applet: a missing one is found here and not by a script in the guest. */
async function linkApplets(target: string, signal: AbortSignal): Promise<void> {
  const list = await run(join(target, 'usr/bin/busybox'), ['--list'], { signal, timeoutMs: 10_000 });
  const known = new Set(list.split('\n'));
  const missing = APPLETS.filter((applet) => !known.has(applet));
  if (missing.length > 0) throw new InfraletError('NOT_FOUND', `busybox has no ${missing.join(', ')}`);
  for (const applet of APPLETS) await symlink('busybox', join(target, 'usr/bin', applet));
}

interface Program {
  readonly from: string;
  readonly to: string;
}

/** Copies programs with the libraries and the loader that they need. */
export async function installPrograms(
  files: readonly string[],
  packages: string,
  target: string,
  others: readonly Program[] = [],
): Promise<void> {
  const queue: Program[] = files.map((path) => ({
    from: join(packages, path),
    // usr/sbin is a link to usr/bin.
    to: path.replace(/^usr\/sbin\//, 'usr/bin/'),
  }));
  queue.push(...others);
  const done = new Set<string>();
  for (let next = queue.shift(); next; next = queue.shift()) {
    if (done.has(next.to)) continue;
    done.add(next.to);
    const content = await readProgram(next.from, next.to);
    const destination = join(target, next.to);
    await mkdir(dirname(destination), { recursive: true });
    await writeFile(destination, isElf(content) ? strip(content) : content, { mode: 0o755 });
    if (!isElf(content)) continue;
    const { libraries, loader } = dependencies(content);
    if (loader !== '') queue.push({ from: await realpath(join(packages, 'usr', loader)), to: join('usr', loader) });
    for (const library of libraries) queue.push(await findLibrary(packages, library, next.to));
  }
}

async function readProgram(from: string, name: string): Promise<Buffer> {
  try {
    return await readFile(from);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
    throw new InfraletError(
      'NOT_FOUND',
      `the packages have no file ${name}, which the recipe of the guest image names`,
    );
  }
}

async function findLibrary(packages: string, name: string, user: string): Promise<{ from: string; to: string }> {
  for (const directory of LIBRARY_DIRS) {
    const to = join(directory, name);
    try {
      await stat(join(packages, to));
      return { from: join(packages, to), to };
    } catch (error) {
      if (!hasErrno(error, 'ENOENT')) throw error;
    }
  }
  throw new InfraletError('NOT_FOUND', `${user} needs ${name}, which no package of the guest image holds`, {
    hint: 'add the package that holds it to config/guest/recipe.yaml',
  });
}

async function installModules(
  release: string,
  modules: readonly Module[],
  bootModules: readonly Module[],
  target: string,
): Promise<void> {
  const root = join(target, 'usr/lib/modules', release);
  const byName = new Map(modules.map((module) => [module.name, module]));
  for (const { path, data } of modules) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), data);
  }
  // Everything a module needs, in loading order.
  const needs = ({ depends }: Module): readonly Module[] =>
    depends.flatMap((name) => {
      const module = byName.get(name.replaceAll('-', '_'));
      return module ? [...needs(module), module] : [];
    });
  // modprobe loads a line from its end.
  const lines = modules.map((module) => {
    const paths = [...new Set(needs(module).map(({ path }) => path))];
    return `${module.path}: ${paths.reverse().join(' ')}`;
  });
  await writeFile(join(root, 'modules.dep'), `${lines.join('\n')}\n`);
  const aliases = modules.flatMap(({ name, aliases: all }) => all.map((alias) => `alias ${alias} ${name}`));
  await writeFile(join(root, 'modules.alias'), `${aliases.join('\n')}\n`);
  await writeFile(join(root, 'modules.symbols'), '');
  const boot = bootModules.map(({ path }) => `/usr/lib/modules/${release}/${path}`);
  await writeFile(join(target, 'usr/lib/infralet/modules'), `${boot.join('\n')}\n`);
}

/** Uncompressed: under emulation, unpacking costs more than reading what the host has in its page cache anyway. */
export async function makeErofs(tree: string, file: string, uuid: string, signal: AbortSignal): Promise<void> {
  await run('mkfs.erofs', ['--all-root', '-T0', `-U${uuid}`, '-x-1', '--quiet', file, tree], {
    signal,
    timeoutMs: 300_000,
  });
}
