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

export function qemuArguments(
  machine: { readonly record: MachineRecord; readonly files: MachineFiles; readonly commandLine: string },
  image: GuestImage,
  config: QemuConfig,
): readonly string[] {
  const { record, files, commandLine } = machine;
  const cpus = vcpus(record.shape, config);
  return [
    ['-name', processName(parseInstanceId(record.id))],
    platform(record.accel, config),
    ['-smp', String(cpus), '-m', `${memoryMiB(record.shape)}M`],
    // A guest that halts, reboots or panics (panic=-1 reboots) leaves its emulator paused: the console can still be read.
    ['-action', 'reboot=shutdown,shutdown=pause,panic=pause'],
    ['-kernel', image.kernel, '-initrd', image.initramfs, '-append', commandLine],
    ['-chardev', `ringbuf,id=${CONSOLE_DEVICE},size=${ringSize(config.consoleSize)}`],
    ['-serial', `chardev:${CONSOLE_DEVICE}`],
    ['-qmp', `unix:${doubled(files.qmp)},server=on,wait=off`],
    ['-fw_cfg', `name=opt/infralet/user-data,file=${doubled(files.userData)}`],
    ['-object', 'rng-random,id=entropy,filename=/dev/urandom', '-device', 'virtio-rng-device,rng=entropy'],
    disks(files, image),
    networks(record),
    // Files, sockets and the tap are open by now; from here on the process is nobody in particular.
    ['-runas', `${record.uid}:${record.uid}`],
    // set*uid stays allowed because -runas itself needs it after the filter is in place; a process without privileges,
    // capabilities and exec gains nothing from it.
    config.sandbox ? ['-sandbox', 'on,obsolete=deny,spawn=deny,resourcecontrol=deny'] : [],
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
export function platform(accel: 'kvm' | 'tcg', config: QemuConfig): readonly string[] {
  const cache = Math.max(1, Math.round(config.translationCache / 2 ** 20));
  return [
    ['-nodefaults', '-no-user-config', '-display', 'none'],
    // ACPI is how a guest of this machine type learns of its disks and NICs.
    ['-M', 'microvm,acpi=on,pcie=off,pit=on,pic=on,rtc=on,dump-guest-core=off'],
    ['-accel', accel === 'kvm' ? 'kvm' : `tcg,thread=multi,tb-size=${cache}`],
    ['-cpu', accel === 'kvm' ? config.cpuModelKvm : config.cpuModelTcg],
  ].flat();
}

function disks(files: MachineFiles, image: GuestImage): readonly string[] {
  // All machines read one root file: no lock on it, and the host's page cache is shared.
  const shared = (filename: string) => ({ driver: 'file', filename, 'read-only': true, locking: 'off' });
  const root = { driver: 'raw', 'node-name': 'root', 'read-only': true, file: shared(image.rootfs) };
  const scratch = {
    driver: 'qcow2',
    'node-name': 'scratch',
    discard: 'unmap',
    // A scratch disk does not outlive its machine: waiting for the platter would protect nothing.
    cache: { 'no-flush': true },
    file: { driver: 'file', filename: files.scratch, discard: 'unmap', cache: { 'no-flush': true } },
    backing: { driver: 'raw', 'read-only': true, file: shared(image.scratch) },
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
