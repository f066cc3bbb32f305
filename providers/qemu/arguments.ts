/** QEMU's command line for one machine. Pure: everything it depends on is in its parameters. */
import { availableParallelism } from 'node:os';
import { parseInstanceId } from '../../src/base/ids.ts';
import type { MachineShape } from '../../src/cloud/contract.ts';
import type { QemuConfig } from './config.ts';
import { CONSOLE_DEVICE, ringSize } from './console.ts';
import type { GuestImage } from './guest-image.ts';
import { processName } from './process-identity.ts';
import type { MachineFiles, MachineRecord } from './record.ts';

/** The agent's port inside the machine. */
const AGENT_PORT = 7443;
const MANAGEMENT_MAC = '52:54:00:00:00:01';
const POD_MAC = '52:54:00:00:00:02';

/** Whole processors for a share of them, at least one, and no more than the host has. */
export function vcpus(shape: MachineShape, config: QemuConfig, hostCpus: number = availableParallelism()): number {
  return Math.max(1, Math.min(Math.ceil(shape.cpuMillis / 1000), hostCpus, config.maxVcpus));
}

/** Guest memory in MiB, QEMU's unit. */
export function memoryMiB(shape: MachineShape): number {
  return Math.ceil(shape.memoryBytes / 2 ** 20);
}

/** How a machine comes to life, beside the plain boot. */
export type Start =
  | { readonly kind: 'boot' }
  /** A boot that is to be frozen: memory in a file, the clock decades ahead (see src/agent/template.ts). */
  | { readonly kind: 'template'; readonly class: TemplateClass; readonly memory: string }
  | {
      readonly kind: 'clone';
      readonly class: TemplateClass;
      readonly memory: string;
      /** The template's disk, below the clone's own. */
      readonly scratch: string;
      /** Whether this QEMU can map a file private and writable without holding it open for writing (8.2). */
      readonly readOnlyFile: boolean;
    };

/** What a machine and its template must have in common. */
export interface TemplateClass {
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly diskMiB: number;
}

/** The class of template for a shape: few classes, each at most half larger than what is asked for. */
export function templateClass(shape: MachineShape, config: QemuConfig): TemplateClass {
  const wanted = memoryMiB(shape);
  let size = 128;
  while (size < wanted) size = Number.isInteger(Math.log2(size)) ? size * 1.5 : (size / 1.5) * 2;
  return { vcpus: vcpus(shape, config), memoryMiB: size, diskMiB: Math.ceil(shape.diskBytes / 2 ** 20) };
}

/** A year that no clone will see, and the last decade that a two-digit clock chip can name. */
const TEMPLATE_TIME = '2060-01-01T00:00:00';

export function qemuArguments(
  machine: {
    readonly record: MachineRecord;
    readonly files: MachineFiles;
    readonly commandLine: string;
    readonly start: Start;
  },
  image: GuestImage,
  config: QemuConfig,
): readonly string[] {
  const { record, files, commandLine, start } = machine;
  return [
    ['-name', processName(parseInstanceId(record.id))],
    platform(record.accel, config, start.kind === 'clone' ? config.translationCacheClone : config.translationCache),
    processorsAndMemory(record.shape, start, config),
    // A guest that halts, reboots or panics (panic=-1 reboots) leaves its emulator paused: the console can still be read.
    ['-action', 'reboot=shutdown,shutdown=pause,panic=pause'],
    ['-kernel', image.kernel, '-initrd', image.initramfs, '-append', commandLine],
    ['-chardev', `ringbuf,id=${CONSOLE_DEVICE},size=${ringSize(config.consoleSize)}`],
    ['-serial', `chardev:${CONSOLE_DEVICE}`],
    ['-qmp', `unix:${doubled(files.qmp)},server=on,wait=off`],
    ['-fw_cfg', `name=opt/infralet/user-data,file=${doubled(files.userData)}`],
    ['-object', 'rng-random,id=entropy,filename=/dev/urandom', '-device', 'virtio-rng-device,rng=entropy'],
    disks(files, image, start.kind === 'clone' ? start.scratch : undefined),
    networks(record),
    // Files, sockets and the tap are open by now; from here on the process is nobody in particular.
    // A template runs no tenant's code, and has to reach a socket in a directory that is root's when it is frozen.
    start.kind === 'template' ? [] : ['-runas', `${record.uid}:${record.uid}`],
    // set*uid stays allowed because -runas itself needs it after the filter is in place; a process without privileges,
    // capabilities and exec gains nothing from it.
    config.sandbox ? ['-sandbox', 'on,obsolete=deny,spawn=deny,resourcecontrol=deny'] : [],
  ].flat();
}

function processorsAndMemory(shape: MachineShape, start: Start, config: QemuConfig): readonly string[] {
  if (start.kind === 'boot') return ['-smp', String(vcpus(shape, config)), '-m', `${memoryMiB(shape)}M`];
  const { vcpus: cpus, memoryMiB: size } = start.class;
  const file = { 'qom-type': 'memory-backend-file', id: 'memory', 'mem-path': start.memory, size: size * 2 ** 20 };
  const backend =
    start.kind === 'template'
      ? { ...file, share: true }
      : { ...file, share: false, ...(start.readOnlyFile ? { readonly: true, rom: 'off' } : {}) };
  return [
    ['-smp', String(cpus), '-m', `${size}M`, '-machine', 'memory-backend=memory'],
    ['-object', JSON.stringify(backend)],
    start.kind === 'template' ? ['-rtc', `base=${TEMPLATE_TIME}`] : ['-incoming', 'defer'],
  ].flat();
}

/** `tscKhz`: the host's counter, which an emulated guest reads and cannot measure. */
export function kernelCommandLine(image: GuestImage, accel: 'kvm' | 'tcg', tscKhz: number | undefined): string {
  if (accel === 'kvm') return image.commandLine;
  return [image.commandLine, image.commandLineTcg, tscKhz === undefined ? '' : `tsc_early_khz=${tscKhz}`]
    .filter((part) => part !== '')
    .join(' ');
}

/** The part that the probe of KVM shares, so that it tries the machine that will be used. */
export function platform(
  accel: 'kvm' | 'tcg',
  config: QemuConfig,
  translationCache: number = config.translationCache,
): readonly string[] {
  const cache = Math.max(1, Math.round(translationCache / 2 ** 20));
  return [
    ['-nodefaults', '-no-user-config', '-display', 'none'],
    // ACPI is how a guest of this machine type learns of its disks and NICs.
    ['-M', 'microvm,acpi=on,pcie=off,pit=on,pic=on,rtc=on,dump-guest-core=off'],
    ['-accel', accel === 'kvm' ? 'kvm' : `tcg,thread=multi,tb-size=${cache}`],
    ['-cpu', accel === 'kvm' ? config.cpuModelKvm : config.cpuModelTcg],
  ].flat();
}

function disks(files: MachineFiles, image: GuestImage, template: string | undefined): readonly string[] {
  // All machines read one root file: no lock on it, and the host's page cache is shared.
  const shared = (filename: string) => ({ driver: 'file', filename, 'read-only': true, locking: 'off' });
  const root = { driver: 'raw', 'node-name': 'root', 'read-only': true, file: shared(image.rootfs) };
  const base = { driver: 'raw', 'read-only': true, file: shared(image.scratch) };
  const frozen = { driver: 'qcow2', 'read-only': true, file: shared(template ?? ''), backing: base };
  const scratch = {
    driver: 'qcow2',
    'node-name': 'scratch',
    discard: 'unmap',
    // A scratch disk does not outlive its machine: waiting for the platter would protect nothing.
    cache: { 'no-flush': true },
    file: { driver: 'file', filename: files.scratch, discard: 'unmap', cache: { 'no-flush': true } },
    backing: template === undefined ? base : frozen,
  };
  return [
    ['-blockdev', JSON.stringify(root), '-device', 'virtio-blk-device,drive=root,serial=root'],
    // A full disk on the node is an error that the guest sees, and ends with; the default would pause it without a word.
    ['-blockdev', JSON.stringify(scratch), '-device', 'virtio-blk-device,drive=scratch,serial=scratch,werror=report'],
  ].flat();
}

function networks(record: MachineRecord): readonly string[] {
  const forward = `hostfwd=tcp:127.0.0.1:${record.port}-:${AGENT_PORT}`;
  return [
    // restrict: the guest reaches nothing through this interface; only the node opens connections.
    ['-netdev', `user,id=management,restrict=on,ipv6=off,${forward}`],
    ['-device', `virtio-net-device,netdev=management,mac=${MANAGEMENT_MAC}`],
    // QEMU makes the tap and holds it: it vanishes with the process, in whatever namespace it is by then.
    ['-netdev', `tap,id=pod,ifname=${record.tap},script=no,downscript=no,vhost=off`],
    ['-device', `virtio-net-device,netdev=pod,mac=${POD_MAC}`],
  ].flat();
}

/** QEMU's option syntax: a comma inside a value is written twice. */
function doubled(path: string): string {
  return path.replaceAll(',', ',,');
}
