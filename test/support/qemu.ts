/** Places for the QEMU provider to work in, and eyes for what it leaves behind. */
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { provider as qemu } from '../../providers/qemu/index.ts';
import { QemuProvider } from '../../providers/qemu/provider.ts';
import { tinyInitramfs } from '../../providers/qemu/tiny-guest.ts';
import { systemClock } from '../../src/base/time.ts';
import { nullLogger } from '../../src/telemetry/log.ts';
import { guestImage } from './guest.ts';

export interface QemuPlace extends AsyncDisposable {
  readonly dir: string;
  readonly stateDir: string;
  /** Parent of the machines' cgroups. */
  readonly cgroup: string;
  /** Configuration section; tests may change it before `open`. */
  readonly section: Record<string, unknown>;
  imageDir: string;
  readonly open: (signal: AbortSignal) => Promise<QemuProvider>;
  /** Processes, taps, cgroups and files of this place. */
  readonly leftovers: () => Promise<readonly string[]>;
}

export async function qemuPlace(): Promise<QemuPlace> {
  const dir = await mkdtemp(join(tmpdir(), 'infralet-q-'));
  const stateDir = join(dir, 'state');
  await mkdir(stateDir);
  const cgroup = `infralet-test-${dir.split('-').at(-1)?.toLowerCase()}`;
  const place: QemuPlace = {
    dir,
    stateDir,
    cgroup,
    section: { accel: 'tcg', cgroup },
    imageDir: await guestImage(),
    open: async (signal) =>
      await QemuProvider.open(
        qemu.parseConfig(place.section),
        { log: nullLogger, clock: systemClock, stateDir, guestImageDir: place.imageDir, owner: {} },
        signal,
      ),
    leftovers: async () => [
      ...(await processes(dir)),
      ...(await cgroups(cgroup)),
      ...(await readdir(join(stateDir, 'machines')).catch(() => [])).map((entry) => `file ${entry}`),
    ],
    [Symbol.asyncDispose]: async () => await rm(dir, { recursive: true, force: true }),
  };
  return place;
}

/** An image of the real kernel whose only program prints a marker and reboots: a machine that ends itself within seconds. */
export async function tinyImage(dir: string): Promise<string> {
  const real = await guestImage();
  const image = join(dir, 'tiny-image');
  await mkdir(image);
  const manifest = JSON.parse(await readFile(join(real, 'manifest.json'), 'utf8')) as Record<string, unknown>;
  await writeFile(
    join(image, 'manifest.json'),
    JSON.stringify({ ...manifest, commandLine: 'console=ttyS0 panic=-1 reboot=t' }),
  );
  await writeFile(join(image, 'initramfs.cpio'), tinyInitramfs());
  for (const name of ['vmlinux', 'rootfs.erofs', 'scratch.ext4']) await symlink(join(real, name), join(image, name));
  return image;
}

/** Live processes whose command line names this place. */
export async function processes(dir: string, below = 'state/machines'): Promise<readonly string[]> {
  const pids = (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry));
  const lines = await Promise.all(
    pids.map(async (pid) => {
      const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' ');
      return words.includes(`${dir}/${below}`) ? `process ${pid} ${words.slice(0, 80)}` : '';
    }),
  );
  return lines.filter((line) => line !== '');
}

async function cgroups(name: string): Promise<readonly string[]> {
  const places = ['', 'cpu', 'memory', 'pids'].map((controller) => join('/sys/fs/cgroup', controller, name));
  const found = await Promise.all(places.map(async (path) => ((await exists(path)) ? [`cgroup ${path}`] : [])));
  return found.flat();
}

/** Whether a network device of this name is in the node's own namespace. */
export async function deviceExists(name: string): Promise<boolean> {
  return await exists(`/sys/class/net/${name}`);
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
