/** The section `providers.qemu` of the configuration: every limit with its unit and its reason. */
import { z } from 'zod';
import { bytes, duration, parseSection } from '../../src/cloud/contract.ts';

const schema = z.strictObject({
  binary: z.string().min(1).default('qemu-system-x86_64').describe('The emulator, by path or by name in PATH.'),
  imageTool: z.string().min(1).default('qemu-img').describe('The disk tool that comes with it.'),
  accel: z
    .enum(['auto', 'kvm', 'tcg'])
    .default('auto')
    .describe('auto: KVM when a guest was seen to boot under it, software emulation otherwise. kvm and tcg: no probe.'),
  probeTimeout: duration('10s').describe(
    'A kernel boots under KVM in well under a second; one that needs ten is stuck, and the host is better without it.',
  ),
  cpuModelKvm: z.string().min(1).default('host').describe('Processor shown to guests under KVM: the real one.'),
  cpuModelTcg: z
    .string()
    .min(1)
    .default('max,la57=off')
    .describe('Processor shown under emulation. Five-level page tables only make every emulated page walk longer.'),
  translationCache: bytes('128Mi').describe(
    'Emulated machines only: memory for translated code. Below this the boot throws code away and translates it anew.',
  ),
  translationCacheClone: bytes('128Mi').describe(
    'The same for clones, which have their boot behind them: every megabyte that is used is used by each of them.',
  ),
  templates: z
    .int()
    .min(1)
    .default(4)
    .describe('Most templates kept, one per size of machine; the one that was not used for longest goes first.'),
  templateIdle: duration('24h').describe(
    'A template of which no machine was made for this long is removed when one is made of another: a day has its rhythm.',
  ),
  templateTimeout: duration('240s').describe(
    'Booting, rehearsing and freezing a template: 20 s on a quiet host, 120 s were seen on a busy one.',
  ),
  maxVcpus: z
    .int()
    .min(1)
    .max(255)
    .default(64)
    .describe('Most virtual processors of one machine; never more than the host has.'),
  cpuOverheadMillis: z
    .int()
    .min(0)
    .default(250)
    .describe("Added to a machine's CPU quota, in thousandths: disk, network and control threads of the emulator."),
  memoryOverhead: bytes('256Mi').describe(
    "Added to a machine's memory limit: the emulator itself, its buffers and the page cache of its disks.",
  ),
  maxThreads: z.int().min(16).default(256).describe('Processes and threads of one machine, against a runaway.'),
  consoleSize: bytes('64Ki').describe('Kept of the console, in the machine and on disk; rounded up to a power of two.'),
  readyTimeout: duration('20s').describe('From start of the process to its first answer; a loaded host takes seconds.'),
  qmpTimeout: duration('5s').describe('One control command; an emulator that does not answer in this time is stuck.'),
  killGrace: duration('1s').describe('Between quit, SIGTERM and SIGKILL. The disk is scratch: nothing needs more.'),
  uidFirst: z
    .int()
    .min(1)
    .max(2 ** 31)
    .default(621_000)
    .describe('Machines run as users of their own, counted from here, so that one cannot touch another. Not root.'),
  uidCount: z.int().min(1).default(4096).describe('How many such users there are: the most machines on one node.'),
  sandbox: z
    .boolean()
    .default(true)
    .describe("The emulator's own system call filter: no fork, no exec, no change of priorities."),
  cgroup: z
    .string()
    .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/)
    .default('infralet')
    .describe('Name of the cgroup below which each machine has its own.'),
  workDir: z
    .string()
    .refine((path) => path === '' || path.startsWith('/'), 'must be absolute or empty')
    .default('')
    .describe("Directory of the machines' working directories; empty: <stateDir>/providers/qemu/machines."),
  templateDir: z
    .string()
    .refine((path) => path === '' || path.startsWith('/'), 'must be absolute or empty')
    .default('')
    .describe(
      'Directory of the templates; empty: <stateDir>/providers/qemu/templates. On a tmpfs clones never wait for the disk; ' +
        'daemons that run one after the other may share it.',
    ),
});

export type QemuConfig = Readonly<z.output<typeof schema>>;

export function parseConfig(section: unknown): QemuConfig {
  return parseSection('qemu', schema, section);
}
