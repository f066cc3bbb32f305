/** The guest image: built, kept, booted under QEMU as it is, asked through the agent, powered off. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tscKhz } from '../../providers/qemu/tsc.ts';
import { hasErrno, InfraletError } from '../../src/base/errors.ts';
import { freePort } from '../../src/base/free-port.ts';
import { newSandboxId } from '../../src/base/ids.ts';
import { until } from '../../src/base/time.ts';
import type { AgentChannel } from '../../src/guest/channel.ts';
import { buildGuestImage } from '../../src/guest-image/build.ts';
import { strip } from '../../src/guest-image/elf.ts';
import { FILE_ROLES, readGuestManifest } from '../../src/guest-image/manifest.ts';
import { staging } from '../../src/guest-image/publish.ts';
import { AgentWorld } from '../support/agent/machine.ts';
import { GUEST_IMAGE_TIMEOUT_MS, guestImage } from '../support/guest.ts';

const run = promisify(execFile);
/** A busy host with emulation needs many times the few seconds of an idle one. */
const BOOT_MS = 120_000;
const soon = () => ({ signal: AbortSignal.timeout(BOOT_MS), timeoutMs: 30_000 });

let image: string;
beforeAll(async () => {
  image = await guestImage();
}, GUEST_IMAGE_TIMEOUT_MS);

describe('a built image', () => {
  it('is whole, below 300 MB, and nothing is made again while its inputs stay', async () => {
    const manifest = await readGuestManifest(image);
    const total = FILE_ROLES.reduce((sum, role) => sum + manifest.files[role].allocated, 0);
    expect(total).toBeLessThan(300e6);
    expect(manifest.versions.kernel).toMatch(/cloud-amd64$/);
    // An image named by hand is taken as it is.
    if (process.env['INFRALET_GUEST_IMAGE'] !== undefined) return;
    const lines: string[] = [];
    const started = performance.now();
    const again = await buildGuestImage({
      directory: image,
      onProgress: (line) => lines.push(line),
      signal: AbortSignal.timeout(60_000),
    });
    expect(again.cached).toBe(true);
    expect(again.manifest).toEqual(manifest);
    expect(lines).toEqual([]);
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  it('never takes the place of a directory that holds something else', async () => {
    const parent = await mkdtemp(join(tmpdir(), 'infralet-image-'));
    try {
      const directory = join(parent, 'documents');
      await mkdir(directory);
      await writeFile(join(directory, 'letter.txt'), 'dear');
      const work = buildGuestImage({ directory, onProgress: () => undefined, signal: AbortSignal.timeout(60_000) });
      await expect(work).rejects.toThrow('is not a guest image');
      expect(await readFile(join(directory, 'letter.txt'), 'utf8')).toBe('dear');
    } finally {
      await rm(parent, { recursive: true, force: true });
    }
  });

  it('leaves nothing behind when its build is cancelled, and clears up after builds that were killed', async () => {
    const parent = await mkdtemp(join(tmpdir(), 'infralet-image-'));
    try {
      const directory = join(parent, 'guest');
      // No process has this id: a build that died.
      await mkdir(join(parent, '.guest.build-4194304-00000000'));
      const cancel = new AbortController();
      const work = buildGuestImage({
        directory,
        cacheDir: join(parent, 'cache'),
        onProgress: () => cancel.abort(new InfraletError('CANCELLED', 'enough')),
        signal: cancel.signal,
      });
      await expect(work).rejects.toThrow('enough');
      expect((await readdir(parent)).filter((name) => name !== 'cache')).toEqual([]);
    } finally {
      await rm(parent, { recursive: true, force: true });
    }
  });

  it('is made in a place of its own by each build', async () => {
    const parent = await mkdtemp(join(tmpdir(), 'infralet-image-'));
    try {
      await using one = await staging(join(parent, 'guest'));
      await using two = await staging(join(parent, 'guest'));
      expect(one.path).not.toBe(two.path);
      expect((await stat(one.image)).isDirectory()).toBe(true);
    } finally {
      await rm(parent, { recursive: true, force: true });
    }
  });
});

describe('programs', () => {
  it('run as before when they are stripped', async () => {
    const parent = await mkdtemp(join(tmpdir(), 'infralet-strip-'));
    try {
      const original = await readFile(process.execPath);
      const program = join(parent, 'node');
      const small = strip(original);
      await writeFile(program, small, { mode: 0o755 });
      expect(small.length).toBeLessThan(original.length);
      expect((await run(program, ['-p', '6 * 7'])).stdout.trim()).toBe('42');
    } finally {
      await rm(parent, { recursive: true, force: true });
    }
  });
});

describe('a machine from the image', () => {
  let world: AgentWorld;
  let machine: Machine;
  let channel: AgentChannel;

  beforeAll(async () => {
    world = await AgentWorld.create();
    const dialer = world.dialer(await world.pki());
    const identity = { sandboxId: newSandboxId(), instanceId: 'machine-1' };
    const token = dialer.newToken();
    machine = world.use(await Machine.start(image, world.dir, dialer.userData(token, identity)));
    channel = world.use(
      await until(
        async () => {
          machine.check();
          try {
            return await dialer.enrol(machine.address, identity, token, soon());
          } catch (error) {
            if (error instanceof InfraletError && error.code === 'UNAVAILABLE') return undefined;
            throw error;
          }
        },
        { everyMs: 100, signal: AbortSignal.timeout(BOOT_MS) },
      ),
    );
  }, BOOT_MS);
  afterAll(async () => {
    await world[Symbol.asyncDispose]();
  });

  it(
    'reports its image, the phases of its boot and an agent below 80 MB',
    async () => {
      const manifest = await readGuestManifest(image);
      const status = await until(
        async () => {
          const found = await channel.status(soon());
          return found.containerdReady && found.phases['containerd'] !== undefined ? found : undefined;
        },
        { everyMs: 200, signal: AbortSignal.timeout(BOOT_MS) },
      );
      expect(status.imageDigest).toBe(manifest.imageDigest);
      expect(status.kernel).toBe(manifest.versions.kernel);
      const at = (phase: string): number => Number(status.phases[phase]);
      expect(at('init')).toBeGreaterThan(0);
      expect(at('agent-start')).toBeGreaterThanOrEqual(at('init'));
      expect(at('listening')).toBeGreaterThan(at('agent-start'));
      expect(at('containerd-start')).toBeGreaterThanOrEqual(at('init'));
      expect(Number(status.agentResidentBytes)).toBeLessThan(80e6);
    },
    BOOT_MS,
  );

  it(
    'has the pause image in containerd, and a scratch disk that has grown',
    async () => {
      const { pauseImage } = await readGuestManifest(image);
      const { images } = await channel.cri('ListImages', {}, soon());
      expect(images.map(({ repoTags }) => repoTags)).toEqual([[pauseImage]]);
      expect(images[0]?.pinned).toBe(true);
      const { info } = await channel.cri('Status', { verbose: true }, soon());
      expect(info['config']).toContain('"defaultRuntimeName":"crun"');
      const grown = await until(async () => (await channel.status(soon())).phases['scratch'], {
        everyMs: 200,
        signal: AbortSignal.timeout(BOOT_MS),
      });
      expect(Number(grown)).toBeGreaterThan(0);
      expect(await machine.console()).not.toContain('cannot grow');
    },
    BOOT_MS,
  );

  it(
    'powers off at the end of its lease, and its emulator ends',
    async () => {
      await channel.renewLease(1, soon());
      expect(await machine.exit(AbortSignal.timeout(BOOT_MS))).toBe(0);
      expect(await machine.console()).toContain('Power down');
    },
    BOOT_MS,
  );
});

/** QEMU as config/guest/README.md says to start it by hand. */
class Machine implements AsyncDisposable {
  readonly address: { readonly host: string; readonly port: number };
  readonly #child: ChildProcess;
  readonly #console: string;
  #errors = '';

  static async start(directory: string, workDir: string, userData: string): Promise<Machine> {
    const manifest = await readGuestManifest(directory);
    const at = (role: (typeof FILE_ROLES)[number]): string => join(directory, manifest.files[role].name);
    const scratch = join(workDir, 'scratch.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', at('scratch'), '-F', 'raw', scratch, '2G']);
    await writeFile(join(workDir, 'user-data.json'), userData, { mode: 0o600 });
    const khz = await tscKhz(workDir, AbortSignal.timeout(BOOT_MS));
    const port = await freePort();
    const device = (name: string, file: string, more: string): string[] => [
      ...[
        '-drive',
        `if=none,id=${name},file=${file},${more}`,
        '-device',
        `virtio-blk-device,drive=${name},serial=${name}`,
      ],
    ];
    const args = [
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ...['-M', 'microvm,acpi=on,pcie=off,pit=on,pic=on,rtc=on', '-accel', 'tcg,thread=multi,tb-size=256'],
      ...['-cpu', 'max,-erms,-fsrm', '-smp', '1', '-m', '448', '-kernel', at('kernel'), '-initrd', at('initramfs')],
      ...['-append', `${manifest.commandLine} ${manifest.commandLineTcg} tsc_early_khz=${khz}`],
      ...['-serial', `file:${join(workDir, 'console.log')}`],
      ...device('root', at('rootfs'), 'format=raw,readonly=on'),
      ...device('scratch', scratch, 'format=qcow2,cache=unsafe'),
      ...['-netdev', `user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:${port}-:7443`],
      ...['-device', 'virtio-net-device,netdev=mgmt,mac=52:54:00:00:00:01'],
      ...['-object', 'rng-random,id=rng,filename=/dev/urandom', '-device', 'virtio-rng-device,rng=rng'],
      ...['-fw_cfg', `name=opt/infralet/user-data,file=${join(workDir, 'user-data.json')}`],
    ];
    const child = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    return new Machine(child, join(workDir, 'console.log'), port);
  }

  private constructor(child: ChildProcess, consoleFile: string, port: number) {
    this.#child = child;
    this.#console = consoleFile;
    this.address = { host: '127.0.0.1', port };
    child.stderr?.on('data', (data: Buffer) => {
      this.#errors += data.toString();
    });
  }

  /** Throws when the emulator has ended. */
  check(): void {
    if (this.#child.exitCode !== null) throw new Error(`QEMU ended with ${this.#child.exitCode}: ${this.#errors}`);
  }

  async exit(signal: AbortSignal): Promise<number | null> {
    if (this.#child.exitCode === null) await once(this.#child, 'exit', { signal });
    return this.#child.exitCode;
  }

  async console(): Promise<string> {
    try {
      return await readFile(this.#console, 'utf8');
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return '';
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }
}
