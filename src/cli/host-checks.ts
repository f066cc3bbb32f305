/** What `doctor` looks for on this host apart from the provider's own findings. */
import { access, constants, readdir, readFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import type { Check } from '../cloud/contract.ts';
import type { Config } from '../config/schema.ts';
import { loadConflist } from '../network/conflist.ts';

/** Debian package that brings each program. */
const PROGRAMS = {
  ip: 'iproute2',
  tc: 'iproute2',
  iptables: 'iptables',
  nsenter: 'util-linux',
} as const;

export async function hostChecks(config: Config, path: string = process.env['PATH'] ?? ''): Promise<readonly Check[]> {
  const checks = await Promise.all([
    ...Object.entries(PROGRAMS).map(([program, debian]) => checkProgram(program, debian, path)),
    checkProgram(config.image.skopeo, 'skopeo', path, 'image: skopeo'),
    network(config),
    guestImage(config),
  ]);
  return [root(), ...checks];
}

function root(): Check {
  const uid = process.getuid?.();
  return uid === 0
    ? { name: 'user', ok: true, detail: 'root' }
    : {
        name: 'user',
        ok: false,
        detail: `user id ${uid}; namespaces, taps and machines need root`,
        fix: 'run the command with sudo',
      };
}

async function checkProgram(
  program: string,
  debian: string,
  path: string,
  name = `program: ${program}`,
): Promise<Check> {
  const found = await which(program, path);
  return found === undefined
    ? { name, ok: false, detail: 'not found in PATH', fix: `apt-get install ${debian}` }
    : { name, ok: true, detail: found };
}

/** Full path of a program; administrators' directories count, too, as they do for the daemon. */
async function which(program: string, path: string): Promise<string | undefined> {
  const directories = program.includes('/') ? [''] : [...path.split(delimiter), '/usr/sbin', '/sbin'];
  for (const directory of directories) {
    const file = directory === '' ? program : join(directory, program);
    try {
      await access(file, constants.X_OK);
      return file;
    } catch {
      // Not here; the next directory.
    }
  }
  return undefined;
}

async function network(config: Config): Promise<Check> {
  const name = 'pod network: CNI';
  const { confDir, cacheDir, binDirs } = config.network;
  let plugins: readonly string[];
  try {
    const conflist = await loadConflist(confDir, cacheDir);
    plugins = conflist.plugins.flatMap(({ type, ipam }) => (ipam?.type === undefined ? [type] : [type, ipam.type]));
  } catch (error) {
    const { message, hint } = InfraletError.from(error);
    return { name, ok: false, detail: message, ...(hint === undefined ? {} : { fix: hint }) };
  }
  const present = new Set((await Promise.all(binDirs.map(names))).flat());
  const missing = plugins.filter((plugin) => !present.has(plugin));
  return missing.length === 0
    ? { name, ok: true, detail: `${confDir}: ${plugins.join(', ')}` }
    : {
        name,
        ok: false,
        detail: `${confDir} needs ${missing.join(', ')}, not found in ${binDirs.join(', ')}`,
        fix: 'apt-get install containernetworking-plugins (or install your plugin into one of network.binDirs)',
      };
}

async function guestImage(config: Config): Promise<Check> {
  const name = 'guest image';
  const manifest = await json(join(config.guestImageDir, 'manifest.json'));
  return manifest === undefined
    ? {
        name,
        ok: false,
        detail: `there is none in ${config.guestImageDir}`,
        fix: 'infralet image build',
      }
    : { name, ok: true, detail: config.guestImageDir };
}

async function names(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES')) return [];
    throw error;
  }
}

/** Content of a JSON file, or undefined when it is missing or broken. */
async function json(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch {
    return undefined;
  }
}
