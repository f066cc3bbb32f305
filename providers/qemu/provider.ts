/**
 * The provider object. Truth is the directory of machines (record.ts) and the processes that belong to it; in memory are
 * only a monitor per running machine and the ports and users in use. One lock per machine orders launch, end and removal.
 */
import { realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { InfraletError } from '../../src/base/errors.ts';
import { ensureDirectory } from '../../src/base/files.ts';
import type { InstanceId } from '../../src/base/ids.ts';
import { abortable, KeyedLock } from '../../src/base/keyed-lock.ts';
import { isAlive, type ProcessIdentity } from '../../src/base/process-identity.ts';
import type {
  Check,
  DescribeQuery,
  Instance,
  LaunchRequest,
  LaunchResult,
  MachineShape,
  MachineUsage,
  Provider,
  ProviderContext,
} from '../../src/cloud/contract.ts';
import { eachLaunch } from '../../src/cloud/contract-batch.ts';
import { probeKvm, qemuVersion } from './accelerator.ts';
import { kernelCommandLine, type Start } from './arguments.ts';
import { setCpu } from './cgroup.ts';
import type { QemuConfig } from './config.ts';
import { consoleText, ringSize, savedConsole } from './console.ts';
import { doctor } from './doctor.ts';
import { classify } from './errors.ts';
import { type GuestImage, readGuestImage } from './guest-image.ts';
import { checkShape, launchMachine } from './launch.ts';
import { Monitor } from './monitor.ts';
import type { Qmp, QmpEvent } from './qmp.ts';
import {
  brokenRecord,
  isMachineId,
  listMachines,
  type MachineFiles,
  type MachineRecord,
  machineExists,
  machineFiles,
  machineId,
  readRecord,
  writeRecord,
} from './record.ts';
import { removeMachine } from './remove.ts';
import { Reservations } from './reservations.ts';
import type { Template } from './template-files.ts';
import { BUILDING, type Ground, Templates } from './templates.ts';
import { tscKhz } from './tsc.ts';
import { diskBlocks, proportionalMemory } from './usage.ts';

/** Cleaning up after a failed or cancelled launch gets this long, milliseconds; the caller's signal may have fired already. */
const CLEANUP_MS = 20_000;

export class QemuProvider implements Provider {
  readonly name = 'qemu';
  readonly classify = classify;
  readonly #config: QemuConfig;
  readonly #context: ProviderContext;
  readonly clone: Templates;
  readonly #machinesDir: string;
  readonly #reservations: Reservations;
  readonly #monitors = new Map<InstanceId, Monitor>();
  readonly #launching = new Set<InstanceId>();
  readonly #locks = new KeyedLock<InstanceId>();
  readonly #closing = new AbortController();
  #version: Promise<string> | undefined;
  #accel: Promise<'kvm' | 'tcg'> | undefined;
  #tsc: Promise<number | undefined> | undefined;

  private constructor(config: QemuConfig, context: ProviderContext, machinesDir: string, templatesDir: string) {
    this.#config = config;
    this.#context = context;
    this.#machinesDir = machinesDir;
    this.#reservations = new Reservations(config);
    this.clone = new Templates({
      root: templatesDir,
      config,
      reservations: this.#reservations,
      clock: context.clock,
      log: context.log,
      ground: async (signal) => await this.#ground(signal),
      clones: async (id) => await this.#clonesOf(id),
    });
  }

  /** Finds the machines of earlier runs again. */
  static async open(config: QemuConfig, context: ProviderContext, signal: AbortSignal): Promise<QemuProvider> {
    const wanted = config.workDir === '' ? join(context.stateDir, 'machines') : config.workDir;
    await ensureDirectory(wanted, 0o700);
    const templates = config.templateDir === '' ? join(context.stateDir, 'templates') : config.templateDir;
    await ensureDirectory(templates, 0o700);
    checkSocketPaths(wanted, join(templates, BUILDING));
    const provider = new QemuProvider(config, context, await realpath(wanted), await realpath(templates));
    for (const id of await listMachines(provider.#machinesDir)) {
      signal.throwIfAborted();
      await provider.#adopt(id);
    }
    await provider.clone.recover(signal);
    // Takes a third of a second: done when the first machine is asked for. A failure shows again then.
    if (config.accel !== 'kvm') provider.#tscKhz(provider.#closing.signal).catch(() => undefined);
    return provider;
  }

  async launch(batch: readonly LaunchRequest[], signal: AbortSignal): Promise<readonly LaunchResult[]> {
    return await eachLaunch(batch, async (request) => await this.#launchOne(request, signal));
  }

  async describe(query: DescribeQuery, signal: AbortSignal): Promise<readonly Instance[]> {
    signal.throwIfAborted();
    const ids = query.by === 'ids' ? query.ids.filter(isMachineId) : await listMachines(this.#machinesDir);
    const found: Instance[] = [];
    for (const id of new Set(ids)) {
      signal.throwIfAborted();
      const read = await readRecord(this.#files(id));
      if (read.kind === 'broken') this.#context.log.error('a machine has an unreadable record', { id, ...read });
      if (read.kind !== 'record') continue;
      const { tags } = read.record;
      if (query.by === 'tags' && Object.entries(query.tags).some(([key, value]) => tags[key] !== value)) continue;
      found.push(await this.#instance(id, read.record));
    }
    return found;
  }

  async terminate(ids: readonly InstanceId[], signal: AbortSignal): Promise<void> {
    const results = await Promise.allSettled(ids.filter(isMachineId).map(async (id) => await this.#remove(id, signal)));
    const failed = results.filter((result) => result.status === 'rejected');
    if (failed[0]) throw failed[0].reason;
  }

  async console(id: InstanceId, maxBytes: number, signal: AbortSignal): Promise<string> {
    if (!isMachineId(id)) return '';
    const monitor = this.#monitors.get(id);
    if (monitor) return await monitor.console(maxBytes, signal);
    return consoleText(await savedConsole(this.#files(id).console), maxBytes);
  }

  async usage(id: InstanceId, signal: AbortSignal): Promise<MachineUsage> {
    signal.throwIfAborted();
    const read = isMachineId(id) ? await readRecord(this.#files(id)) : { kind: 'none' as const };
    if (read.kind !== 'record') throw new InfraletError('NOT_FOUND', `there is no machine ${id}`);
    const { process: identity } = read.record;
    const alive = identity !== undefined && (await isAlive(identity));
    return {
      memoryBytes: alive ? await proportionalMemory(identity.pid) : 0,
      diskBytes: await diskBlocks(this.#files(id).dir),
    };
  }

  /** The CPU is the host's and can be given out anew; memory that the guest has seen stays with it. */
  async resize(id: InstanceId, shape: MachineShape, signal: AbortSignal): Promise<void> {
    using _ = await this.#locks.acquire(id, signal);
    const files = this.#files(id);
    const read = isMachineId(id) ? await readRecord(files) : { kind: 'none' as const };
    if (read.kind === 'broken') throw brokenRecord(id, read.problem);
    if (read.kind === 'none' || (await this.#state(id, read.record)).state !== 'running') {
      throw new InfraletError('NOT_FOUND', `the machine ${id} cannot be resized: it does not run`);
    }
    const { record } = read;
    const most = record.most ?? record.shape;
    if (shape.cpuMillis > most.cpuMillis || shape.memoryBytes > most.memoryBytes || shape.diskBytes > most.diskBytes) {
      throw new InfraletError('FAILED_PRECONDITION', `the machine ${id} was made smaller than it is asked to be now`);
    }
    const { cpuMillis } = shape;
    await setCpu(record.cgroup, { shareMillis: cpuMillis, quotaMillis: cpuMillis + this.#config.cpuOverheadMillis });
    await writeRecord(files, { ...record, shape: { ...shape }, most });
  }

  async doctor(signal: AbortSignal): Promise<readonly Check[]> {
    const { stateDir, guestImageDir } = this.#context;
    const broken: { id: string; problem: string }[] = [];
    for (const id of await listMachines(this.#machinesDir)) {
      const read = await readRecord(this.#files(id));
      if (read.kind === 'broken') broken.push({ id, problem: read.problem });
    }
    return await doctor({ config: this.#config, stateDir, guestImageDir, broken }, signal);
  }

  /** Lets go of the machines; they run on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.clone[Symbol.asyncDispose]();
    await Promise.allSettled([...this.#monitors.values()].map(async (monitor) => await monitor[Symbol.asyncDispose]()));
    await Promise.allSettled([this.#accel, this.#tsc, this.#version]);
  }

  async #launchOne(request: LaunchRequest, signal: AbortSignal): Promise<Instance> {
    checkShape(request.shape);
    const id = machineId(this.#machinesDir, request.token);
    using _ = await this.#locks.acquire(id, signal);
    const existing = await this.#existing(id, request.token);
    if (existing) return existing;
    const ground = await this.#ground(signal);
    const template = request.start === 'clone' ? await this.clone.find(request.shape, ground) : undefined;
    const start: Start = template === undefined ? { kind: 'boot' } : cloneStart(template, ground);
    // What is left of a launch that a crash cut short goes first.
    await this.#clean(id, signal);
    this.#launching.add(id);
    try {
      const { record, started, early, events } = await launchMachine(
        {
          id,
          request,
          start,
          template,
          image: ground.image,
          accel: ground.accel,
          commandLine: ground.commandLine,
          config: this.#config,
          reservations: this.#reservations,
          files: this.#files(id),
          now: this.#context.clock.now(),
        },
        signal,
      );
      const monitor = this.#watch(id, started.identity, { qmp: started.qmp, ended: started.ended, early });
      events.forward = monitor.onEvent;
      if (template) await this.clone.used(template.id, true);
      return await this.#instance(id, record);
    } catch (error) {
      if (template && !signal.aborted) await this.clone.used(template.id, false);
      await this.#clean(id, AbortSignal.timeout(CLEANUP_MS)).catch((problem: unknown) => {
        this.#context.log.error('a failed launch left something behind', { id, error: problem });
      });
      throw error;
    } finally {
      this.#launching.delete(id);
    }
  }

  /** The machine of a token that was launched before and got as far as a process. */
  async #existing(id: InstanceId, token: string): Promise<Instance | undefined> {
    const read = await readRecord(this.#files(id));
    if (read.kind === 'broken') throw brokenRecord(id, read.problem);
    if (read.kind === 'none' || read.record.process === undefined) return undefined;
    if (read.record.token !== token)
      throw new InfraletError('INTERNAL', `two launch tokens share the machine id ${id}`);
    return await this.#instance(id, read.record);
  }

  /** What machines are made of and on, now. */
  async #ground(signal: AbortSignal): Promise<Ground> {
    const image = await readGuestImage(this.#context.guestImageDir);
    const accel = await this.#accelerator(image, signal);
    const khz = accel === 'tcg' ? await this.#tscKhz(signal) : undefined;
    const version = await this.#qemuVersion(signal);
    return { image, accel, tscKhz: khz, commandLine: kernelCommandLine(image, accel, khz), qemuVersion: version };
  }

  /** Machines that run from a template. */
  async #clonesOf(template: string): Promise<number> {
    const ids = await listMachines(this.#machinesDir);
    const reads = await Promise.all(ids.map(async (id) => await readRecord(this.#files(id))));
    return reads.filter((read) => read.kind === 'record' && read.record.template === template && !read.record.stopped)
      .length;
  }

  /** Asked once per run of the daemon. */
  async #qemuVersion(signal: AbortSignal): Promise<string> {
    this.#version ??= qemuVersion(this.#config, this.#closing.signal);
    const asked = this.#version;
    asked.catch(() => {
      if (this.#version === asked) this.#version = undefined;
    });
    return await abortable(asked, signal);
  }

  async #accelerator(image: GuestImage, signal: AbortSignal): Promise<'kvm' | 'tcg'> {
    const { accel } = this.#config;
    if (accel !== 'auto') return accel;
    this.#accel ??= (async () => {
      const verdict = await probeKvm(this.#context.stateDir, image, this.#config, this.#closing.signal);
      this.#context.log.info('accelerator chosen', { ...verdict });
      return verdict.kvm ? 'kvm' : 'tcg';
    })();
    const choice = this.#accel;
    choice.catch(() => {
      if (this.#accel === choice) this.#accel = undefined;
    });
    return await abortable(choice, signal);
  }

  /** Measured once per run of the daemon. */
  async #tscKhz(signal: AbortSignal): Promise<number | undefined> {
    this.#tsc ??= tscKhz(this.#context.stateDir, this.#closing.signal);
    const measured = this.#tsc;
    measured.catch(() => {
      if (this.#tsc === measured) this.#tsc = undefined;
    });
    return await abortable(measured, signal);
  }

  async #remove(id: InstanceId, signal: AbortSignal): Promise<void> {
    using _ = await this.#locks.acquire(id, signal);
    await this.#clean(id, signal);
  }

  /** To be called under the machine's lock. */
  async #clean(id: InstanceId, signal: AbortSignal): Promise<void> {
    const files = this.#files(id);
    const monitor = this.#monitors.get(id);
    if (!monitor && !(await machineExists(files))) return;
    // From here on the machine's end is no news, and nobody else writes into its directory.
    await monitor?.endWatch();
    this.#monitors.delete(id);
    const quit = async (): Promise<boolean> => (await monitor?.quit(signal)) ?? false;
    try {
      await removeMachine({ id, files, config: this.#config, clock: this.#context.clock, quit }, signal);
      this.#reservations.release(id);
    } catch (error) {
      if (await machineExists(files)) await this.#adopt(id);
      throw error;
    } finally {
      await monitor?.[Symbol.asyncDispose]();
    }
  }

  async #adopt(id: InstanceId): Promise<void> {
    const { log } = this.#context;
    const read = await readRecord(this.#files(id));
    if (read.kind === 'broken') {
      log.error('a machine has an unreadable record', { id, problem: read.problem });
      return;
    }
    if (read.kind === 'none') {
      // Cut between making the directory and writing the record, or at the very end of a removal.
      await this.#clean(id, AbortSignal.timeout(CLEANUP_MS));
      return;
    }
    const { record } = read;
    this.#reservations.restore(id, record);
    if (record.process === undefined || record.stopped) return;
    if (await isAlive(record.process)) this.#watch(id, record.process, undefined);
    else await this.#stopped(id, 'the emulator ended while the daemon was away');
  }

  #watch(
    id: InstanceId,
    identity: ProcessIdentity,
    started: { readonly qmp: Qmp; readonly ended: Promise<string>; readonly early: readonly QmpEvent[] } | undefined,
  ): Monitor {
    const { clock, log } = this.#context;
    const monitor = new Monitor(
      {
        files: this.#files(id),
        identity,
        clock,
        log: log.child({ instanceId: id }),
        consoleSize: ringSize(this.#config.consoleSize),
        qmpTimeoutMs: this.#config.qmpTimeout,
        ended: started?.ended,
        onStopped: async (reason) => await this.#stopped(id, reason),
      },
      started?.qmp,
      started?.early,
    );
    this.#monitors.set(id, monitor);
    return monitor;
  }

  /** Writes down that a machine has stopped, for this and later runs of the daemon. */
  async #stopped(id: InstanceId, reason: string): Promise<void> {
    const files = this.#files(id);
    const read = await readRecord(files);
    if (read.kind !== 'record' || read.record.stopped) return;
    this.#context.log.info('a machine has stopped', { instanceId: id, reason });
    await writeRecord(files, { ...read.record, stopped: { at: this.#context.clock.now(), reason } });
  }

  async #instance(id: InstanceId, record: MachineRecord): Promise<Instance> {
    const { state, reason } = await this.#state(id, record);
    return {
      id,
      token: record.token,
      tags: record.tags,
      state,
      reason,
      launchedAt: record.launchedAt,
      shape: record.shape,
      agent: { host: '127.0.0.1', port: record.port },
      podLink: { kind: 'tap', device: record.tap },
      start: record.template === undefined ? 'boot' : 'clone',
    };
  }

  async #state(id: InstanceId, record: MachineRecord): Promise<Pick<Instance, 'state' | 'reason'>> {
    if (record.stopped) return { state: 'stopped', reason: record.stopped.reason };
    if (record.process === undefined) {
      if (this.#launching.has(id)) return { state: 'pending', reason: '' };
      return { state: 'stopped', reason: 'its launch was interrupted' };
    }
    if (await isAlive(record.process)) return { state: 'running', reason: '' };
    return { state: 'stopped', reason: 'the emulator ended' };
  }

  #files(id: InstanceId): MachineFiles {
    return machineFiles(this.#machinesDir, id);
  }
}

function cloneStart(template: Template, { qemuVersion: version }: Ground): Start {
  const [, major = 0, minor = 0] = (/version (\d+)\.(\d+)/.exec(version) ?? []).map(Number);
  return {
    kind: 'clone',
    class: template.record.class,
    memory: template.files.memory,
    scratch: template.files.scratch,
    readOnlyFile: major > 8 || (major === 8 && minor >= 2),
  };
}

/** Longest path of a unix socket, unix(7), and of what is added to a directory of machines: its id and the socket's name. */
const MAX_SOCKET_PATH = 107;
const SOCKET_BELOW = '/0123456789ab/qmp.sock'.length;

/** Better said at the start than when the first machine is made. */
function checkSocketPaths(...directories: readonly string[]): void {
  for (const directory of directories) {
    const excess = Buffer.byteLength(directory) + SOCKET_BELOW - MAX_SOCKET_PATH;
    if (excess <= 0) continue;
    throw new InfraletError(
      'FAILED_PRECONDITION',
      `the path ${directory} is too long for the sockets of its machines`,
      {
        hint: `choose a stateDir that is shorter by ${excess} characters`,
      },
    );
  }
}
