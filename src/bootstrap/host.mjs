/** What this host must be: x86-64 Linux, root; and the Debian packages Infralet needs. */
import { readFileSync } from 'node:fs';
import { capture, must } from './child.mjs';
import { elapsed, SetupError, say, step } from './report.mjs';

/** Package → what needs it. */
export const PACKAGES = {
  'qemu-system-x86': 'machines',
  'qemu-utils': 'disks of machines',
  mmdebstrap: 'guest image: root file system',
  'debian-archive-keyring': 'guest image: trusted packages',
  'erofs-utils': 'guest image: read-only root',
  'busybox-static': 'guest image: init; demo image',
  cpio: 'guest image: initramfs',
  zstd: 'guest image: compressed modules',
  'xz-utils': 'guest image: compressed modules',
  e2fsprogs: 'scratch disks',
  skopeo: 'pulling images',
  'containernetworking-plugins': 'pod network',
  iptables: 'pod network: port mappings',
  nftables: 'pod network: port mappings',
  iproute2: 'pod network: namespaces and taps',
  procps: 'memory figures',
  'util-linux': 'namespaces',
};

/** Needed by the tests only. */
export const TEST_PACKAGES = {
  'docker-registry': 'tests: a real registry',
};

/**
 * @param {string} mode the npm script's name, for the advice
 * @param {boolean} root whether what follows needs root
 * @param {{ platform: string, arch: string, uid: number, node: string }} [host]
 */
export function checkHost(mode, root, host = currentHost()) {
  if (Number(host.node.split('.')[0]) < 20) {
    throw new SetupError(
      `Node ${host.node} is too old to start with`,
      'install Node 20 or newer (apt-get install nodejs npm)',
    );
  }
  if (host.platform !== 'linux' || host.arch !== 'x64') {
    throw new SetupError(
      `Infralet runs on x86-64 Linux; this is ${host.platform} on ${host.arch}`,
      'use a Debian 12 (or newer) host',
    );
  }
  if (root && host.uid !== 0) {
    throw new SetupError(
      'Infralet makes network namespaces, tap devices and machines, and must be root for it',
      `run: sudo npm ${mode === 'start' || mode === 'test' ? mode : `run ${mode}`}`,
    );
  }
}

function currentHost() {
  return {
    platform: process.platform,
    arch: process.arch,
    uid: process.getuid?.() ?? -1,
    node: process.versions.node,
  };
}

/**
 * Installs the packages that are missing; does nothing, in some 10 ms, when there is none.
 * @param {readonly string[]} wanted
 */
export async function installPackages(wanted) {
  const missing = await missingPackages(wanted);
  if (missing.length === 0) return;
  const command = `apt-get update && apt-get install --no-install-recommends -y ${missing.join(' ')}`;
  if (!(await runs('apt-get', ['--version']))) {
    const system = osName();
    throw new SetupError(
      `this host (${system}) has no apt-get, and these are missing: ${missing.join(' ')}`,
      `install the packages that provide them; on Debian it is: ${command}`,
    );
  }
  say(`OS packages missing: ${missing.join(' ')}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' };
  const install = ['install', '-y', '--no-install-recommends', '-o', 'DPkg::Lock::Timeout=120', ...missing];
  await step(`installing ${missing.length} OS packages (apt-get)`, async () => {
    // The lists may be there and fresh enough; asking apt is cheaper than downloading them again.
    const known = await capture('apt-get', ['install', '--simulate', '--no-install-recommends', ...missing], { env });
    if (known.code === 0) {
      const first = await capture('apt-get', install, { env, onLine: aptProgress() });
      if (first.code === 0) return;
      say('the package lists are out of date');
    }
    say('apt-get update');
    await must('apt-get update', 'apt-get', ['-o', 'DPkg::Lock::Timeout=120', 'update'], {
      env,
      fix: 'check /etc/apt/sources.list and the network, then run: apt-get update',
    });
    await must('apt-get install', 'apt-get', install, { env, onLine: aptProgress(), fix: `run by hand: ${command}` });
  });
  const still = await missingPackages(wanted);
  if (still.length > 0)
    throw new SetupError(`still missing after the installation: ${still.join(' ')}`, `run: ${command}`);
}

/** Reports what apt does: one line for the whole, then one every three seconds at most, out of a few hundred. */
function aptProgress() {
  let next = 0;
  /** @param {string} line */
  return (line) => {
    const whole = /^(Need to get|\d+ upgraded|E:)/.test(line);
    if (!whole && !(elapsed() >= next && /^(Get:|Unpacking|Setting up)/.test(line))) return;
    if (!whole) next = elapsed() + 3;
    say(`  ${line}`);
  };
}

/**
 * Which packages are not installed. A host without dpkg is asked for the programs instead.
 * @param {readonly string[]} wanted
 * @returns {Promise<readonly string[]>}
 */
async function missingPackages(wanted) {
  let listed;
  try {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholders
    listed = await capture('dpkg-query', ['-W', '-f', '${Package} ${db:Status-Status}\n', ...wanted]);
  } catch {
    const found = await Promise.all(wanted.map(async (name) => [name, await programOf(name)]));
    return found.filter(([, there]) => !there).map(([name]) => String(name));
  }
  const installed = new Set(
    listed.stdout
      .split('\n')
      .filter((line) => line.endsWith(' installed'))
      .map((line) => line.split(' ')[0]),
  );
  return wanted.filter((name) => !installed.has(name));
}

/** A program (or file) by which a package shows on a host without dpkg. */
const PROGRAMS = {
  'qemu-system-x86': 'qemu-system-x86_64',
  'qemu-utils': 'qemu-img',
  'erofs-utils': 'mkfs.erofs',
  'busybox-static': 'busybox',
  'xz-utils': 'xz',
  e2fsprogs: 'mkfs.ext4',
  iproute2: 'ip',
  procps: 'ps',
  'util-linux': 'nsenter',
  nftables: 'nft',
};

/** @param {string} name */
async function programOf(name) {
  if (name === 'containernetworking-plugins' || name === 'debian-archive-keyring') return true;
  const program = name in PROGRAMS ? PROGRAMS[/** @type {keyof typeof PROGRAMS} */ (name)] : name;
  return runs('sh', ['-c', `command -v ${program}`]);
}

/**
 * @param {string} file
 * @param {readonly string[]} args
 */
async function runs(file, args) {
  try {
    return (await capture(file, args)).code === 0;
  } catch {
    return false;
  }
}

function osName() {
  try {
    return /^PRETTY_NAME="?([^"\n]+)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux';
  } catch {
    return 'Linux';
  }
}
