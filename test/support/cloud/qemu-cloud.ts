/** Machines of a test cloud as real ones: QEMU boots the cloud disk as EC2 or Compute Engine would. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../../src/base/process.ts';
import { guestImage } from '../guest.ts';
import type { CloudKind, MetadataMachine } from '../metadata-service.ts';
import type { Hardware, LaunchBackend } from './backend.ts';
import { CloudLan } from './lan.ts';

const MEMORY_MIB = 1024;

/** Writes the disk of an image to a file. */
type Restore = (imageId: string, file: string) => Promise<void>;

interface Machine {
  readonly address: string;
  readonly disk: string;
  readonly console: string;
  process: ChildProcess | undefined;
}

/** Behind a fake EC2: disks are NVMe devices, user data comes from IMDSv2. Behind a fake Compute Engine: SCSI, its own service. */
export class QemuCloud implements LaunchBackend, AsyncDisposable {
  readonly lan: CloudLan;
  readonly #cloud: CloudKind;
  readonly #directory: string;
  readonly #images = new Map<string, Promise<string>>();
  readonly #restore: Restore;
  readonly #known: Map<string, MetadataMachine>;
  readonly #machines = new Map<string, Machine>();

  private constructor(
    cloud: CloudKind,
    lan: CloudLan,
    directory: string,
    restore: Restore,
    known: Map<string, MetadataMachine>,
  ) {
    this.#cloud = cloud;
    this.lan = lan;
    this.#directory = directory;
    this.#restore = restore;
    this.#known = known;
  }

  /** The machines' network: 10.20 of the fake EC2, 10.30 of the fake Compute Engine. */
  static async open(cloud: CloudKind, restore: Restore): Promise<QemuCloud> {
    const directory = await mkdtemp(join(tmpdir(), 'infralet-cloud-'));
    const known = new Map<string, MetadataMachine>();
    const busybox = join(await guestImage(), 'share', 'usr', 'bin', 'busybox');
    const machine = (address: string) => known.get(address);
    const lan = await CloudLan.open({ cloud, directory, busybox, machine });
    return new QemuCloud(cloud, lan, directory, restore, known);
  }

  async start({ id, address, image, diskGib, userData, spot }: Hardware, onOff: () => void): Promise<void> {
    const { device, mac } = await this.lan.tap(address);
    this.#known.set(address, { id, userData, spot: spot ? { notice: undefined } : undefined });
    let machine = this.#machines.get(id);
    if (!machine) {
      const file = this.#file(id);
      machine = { address, disk: `${file}.qcow2`, console: file, process: undefined };
      this.#machines.set(id, machine);
      const signal = AbortSignal.timeout(20_000);
      const backing = ['-b', await this.#image(image), '-F', 'raw', machine.disk, `${diskGib}G`];
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing], { signal, timeoutMs: 20_000 });
    }
    const child = spawn('qemu-system-x86_64', qemuArguments(machine, DISKS[this.#cloud], device, mac), {
      stdio: 'ignore',
    });
    machine.process = child;
    const reap = (): void => void child.kill('SIGKILL');
    process.once('exit', reap);
    child.once('exit', () => {
      process.off('exit', reap);
      if (machine.process !== child) return;
      machine.process = undefined;
      onOff();
    });
    await once(child, 'spawn');
  }

  /** The image's disk, written once. */
  async #image(id: string): Promise<string> {
    const file = `${this.#file(id)}.raw`;
    const written = this.#images.get(id) ?? this.#restore(id, file).then(() => file);
    this.#images.set(id, written);
    return await written;
  }

  #file(id: string): string {
    return join(this.#directory, id.replaceAll('/', '-'));
  }

  async halt(id: string): Promise<void> {
    const machine = this.#machines.get(id);
    const child = machine?.process;
    if (!machine || !child) return;
    machine.process = undefined;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  }

  async remove(id: string): Promise<void> {
    await this.halt(id);
    const machine = this.#machines.get(id);
    if (!machine) return;
    this.#known.delete(machine.address);
    await rm(machine.disk, { force: true });
  }

  /** The notice that a spot machine is taken back, `ms` from now. */
  announceEnd({ address }: Pick<Hardware, 'address'>, ms: number): void {
    const machine = this.#known.get(address);
    if (machine) this.#known.set(address, { ...machine, spot: { notice: Date.now() + ms } });
  }

  async console(id: string): Promise<string> {
    return await readFile(this.#file(id), 'utf8').catch(() => '');
  }

  /** Process ids of the machines that run. */
  get running(): readonly number[] {
    return [...this.#machines.values()].flatMap(({ process: child }) => child?.pid ?? []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const machine of this.#machines.values()) {
      const child = machine.process;
      machine.process = undefined;
      if (child?.kill('SIGKILL')) await once(child, 'exit');
    }
    await this.lan[Symbol.asyncDispose]();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** The boot disk as each cloud attaches it. */
const DISKS: Readonly<Record<CloudKind, readonly string[]>> = {
  ec2: ['-device', 'nvme,drive=root,serial=vol0123456789abcdef'],
  gce: ['-device', 'virtio-scsi-pci', '-device', 'scsi-hd,drive=root'],
};

function qemuArguments(
  { disk, console }: Machine,
  attached: readonly string[],
  device: string,
  mac: string,
): readonly string[] {
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-M', 'q35'],
    // What makes emulation fast is told in config/guest/README.md.
    ...['-accel', 'tcg,thread=multi,tb-size=256', '-cpu', 'max,-erms,-fsrm', '-smp', '1', '-m', `${MEMORY_MIB}M`],
    ...['-chardev', `file,id=console,path=${console},append=on`, '-serial', 'chardev:console'],
    ...['-drive', `if=none,id=root,file=${disk},format=qcow2,cache=unsafe,discard=unmap`],
    ...[...attached, '-device', 'virtio-rng-pci'],
    ...['-netdev', `tap,id=net,ifname=${device},script=no,downscript=no`],
    ...['-device', `virtio-net-pci,netdev=net,mac=${mac},romfile=`],
  ];
}
