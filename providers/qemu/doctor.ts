/** What this host can do for machines, and what is missing, with the command that mends it. */
import { access, constants } from 'node:fs/promises';
import { errorMessage, InfraletError } from '../../src/base/errors.ts';
import { run } from '../../src/base/process.ts';
import type { Check } from '../../src/cloud/contract.ts';
import { probeKvm, qemuVersion } from './accelerator.ts';
import { cgroupVersion } from './cgroup.ts';
import type { QemuConfig } from './config.ts';
import { readGuestImage } from './guest-image.ts';

export interface DoctorInput {
  readonly config: QemuConfig;
  readonly stateDir: string;
  readonly guestImageDir: string;
  /** Machines whose records cannot be read, with the reason. */
  readonly broken: readonly { readonly id: string; readonly problem: string }[];
}

export async function doctor(input: DoctorInput, signal: AbortSignal): Promise<readonly Check[]> {
  const { config } = input;
  const timeoutMs = config.readyTimeout;
  const checks = await Promise.all([
    check('qemu', 'apt-get install -y qemu-system-x86', async () => await qemuVersion(config, signal)),
    check('qemu-img', 'apt-get install -y qemu-utils', async () => {
      return (await run(config.imageTool, ['--version'], { signal, timeoutMs })).split('\n')[0] ?? '';
    }),
    check('setpriv', 'apt-get install -y util-linux', async () => {
      return (await run('setpriv', ['--version'], { signal, timeoutMs })).trim();
    }),
    check('/dev/net/tun', 'modprobe tun', async () => {
      await access('/dev/net/tun', constants.R_OK | constants.W_OK);
      return 'usable';
    }),
    check('cgroups', 'mount -t cgroup2 none /sys/fs/cgroup', async () => {
      const version = await cgroupVersion();
      await access('/sys/fs/cgroup', constants.R_OK);
      return `version ${version}`;
    }),
    check('root', 'run the daemon as root', async () => {
      if (process.getuid?.() !== 0) throw new InfraletError('PERMISSION_DENIED', 'taps and cgroups need root');
      return 'yes; machines run as users of their own';
    }),
    check('guest image', 'infralet image build', async () => {
      await readGuestImage(input.guestImageDir);
      return input.guestImageDir;
    }),
    accelerator(input, signal),
  ]);
  const broken = input.broken.map(({ id, problem }) => ({
    name: `machine ${id}`,
    ok: false,
    blocks: false,
    detail: problem,
    fix: 'nothing is lost but this machine; remove its directory below the state directory',
  }));
  return [...checks, ...broken];
}

/** Emulation is slow but sound: a host without KVM is not a broken one. */
async function accelerator(input: DoctorInput, signal: AbortSignal): Promise<Check> {
  const name = 'accelerator';
  const { config } = input;
  if (config.accel !== 'auto') return { name, ok: true, detail: `${config.accel}, by configuration` };
  try {
    const image = await readGuestImage(input.guestImageDir);
    const { kvm, detail } = await probeKvm(input.stateDir, image, config, signal);
    return kvm
      ? { name, ok: true, detail: `KVM: ${detail}` }
      : { name, ok: true, detail: `software emulation: ${detail}` };
  } catch (error) {
    signal.throwIfAborted();
    return { name, ok: false, detail: `KVM cannot be probed: ${errorMessage(error)}` };
  }
}

async function check(name: string, fix: string, probe: () => Promise<string>): Promise<Check> {
  try {
    return { name, ok: true, detail: await probe() };
  } catch (error) {
    return { name, ok: false, detail: errorMessage(error), fix };
  }
}
