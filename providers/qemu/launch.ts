/**
 * Makes one machine, in steps that a crash may cut anywhere: the record first, then files, cgroup and process, then the
 * record again with the process. What is left of a cut launch is found by its record and removed by removeMachine.
 */
import { constants, copyFile, mkdir, open, rm, writeFile } from 'node:fs/promises';
import { InfraletError, isAbortError } from '../../src/base/errors.ts';
import type { InstanceId } from '../../src/base/ids.ts';
import { run } from '../../src/base/process.ts';
import { withTimeout } from '../../src/base/time.ts';
import type { LaunchRequest, MachineShape } from '../../src/cloud/contract.ts';
import { MAX_USER_DATA } from '../../src/cloud/contract-batch.ts';
import { memoryMiB, qemuArguments, type Start } from './arguments.ts';
import { makeCgroup } from './cgroup.ts';
import type { QemuConfig } from './config.ts';
import type { GuestImage } from './guest-image.ts';
import { MigrationWatch, thaw } from './migrate.ts';
import type { QmpEvent } from './qmp.ts';
import { type MachineFiles, type MachineRecord, tapName, writeRecord } from './record.ts';
import type { Reservations } from './reservations.ts';
import { type Started, startQemu } from './spawn.ts';
import type { Template } from './template-files.ts';

/** Linux's limit of a unix socket's path, without the final zero. */
const MAX_SOCKET_PATH = 107;
/** A port may be taken between our look and QEMU's bind; more often than this is no accident. */
const PORT_TRIES = 5;
const PORT_TAKEN = /could not set up host forwarding rule/i;

export interface LaunchInput {
  readonly id: InstanceId;
  readonly files: MachineFiles;
  readonly request: LaunchRequest;
  readonly image: GuestImage;
  readonly accel: 'kvm' | 'tcg';
  /** The kernel's, complete. */
  readonly commandLine: string;
  readonly config: QemuConfig;
  readonly reservations: Reservations;
  readonly now: number;
  readonly start: Start;
  /** For a clone: its template. */
  readonly template?: Template | undefined;
}

export interface Launched {
  readonly record: MachineRecord;
  readonly started: Started;
  /** Events that came before anyone listened. */
  readonly early: QmpEvent[];
  /** Receives every later event once it is set. */
  readonly migration: MigrationWatch;
  readonly events: { forward: ((event: QmpEvent) => void) | undefined };
}

/** Throws INVALID_ARGUMENT for what can never work. */
export function checkShape(shape: MachineShape): void {
  const { cpuMillis, memoryBytes, diskBytes } = shape;
  if (!(cpuMillis > 0 && memoryBytes >= 64 * 2 ** 20 && diskBytes >= 0)) {
    throw new InfraletError('INVALID_ARGUMENT', 'a machine needs some CPU and at least 64 MiB of memory', {
      context: { shape },
    });
  }
}

export async function launchMachine(input: LaunchInput, signal: AbortSignal): Promise<Launched> {
  const { id, files, request, config, reservations, start } = input;
  if (Buffer.byteLength(files.qmp) > MAX_SOCKET_PATH) {
    throw new InfraletError('FAILED_PRECONDITION', `the socket path ${files.qmp} is longer than Linux allows`, {
      hint: 'choose a shorter stateDir or providers.qemu.workDir',
    });
  }
  await mkdir(files.dir, { mode: 0o700 });
  let record = newRecord(input, await reservations.take(id));
  await writeRecord(files, record);
  const [cgroupDirs] = await Promise.all([
    makeCgroup(record.cgroup, {
      shareMillis: request.shape.cpuMillis,
      quotaMillis: request.shape.cpuMillis + config.cpuOverheadMillis,
      memoryBytes:
        (start.kind === 'boot' ? memoryMiB(request.shape) : start.class.memoryMiB) * 2 ** 20 +
        config.memoryOverhead +
        (input.accel === 'tcg' ? config.translationCache : 0),
      maxThreads: config.maxThreads,
    }),
    // Always of one size: a guest has learnt the sizes of such files at its boot, and clones do not boot.
    writeFile(files.userData, request.userData.padEnd(MAX_USER_DATA - extra(request.userData), '\n'), { mode: 0o600 }),
    makeScratch(input, signal),
  ]);
  const early: QmpEvent[] = [];
  const events: Launched['events'] = { forward: undefined };
  const migration = new MigrationWatch();
  const onEvent = (event: QmpEvent): void => {
    migration.onEvent(event);
    if (events.forward) events.forward(event);
    else early.push(event);
  };
  for (let attempt = 1; ; attempt += 1) {
    await using state = input.template && (await open(input.template.files.state, 'r'));
    try {
      const args = qemuArguments({ record, files, commandLine: input.commandLine, start }, input.image, config);
      const stateFile = state === undefined ? {} : { stateFile: state.fd };
      const started = await startQemu({ args, cgroupDirs, files, config, onEvent, ...stateFile }, signal);
      if (start.kind === 'clone') await thawed(started, migration, config, signal);
      record = { ...record, process: started.identity };
      await writeRecord(files, record);
      // QEMU has read it; the enrolment token in it need not lie on disk any longer.
      await rm(files.userData, { force: true });
      return { record, started, early, events, migration };
    } catch (error) {
      if (isAbortError(error) || attempt === PORT_TRIES || !PORT_TAKEN.test(String(error))) throw error;
      record = { ...record, port: (await reservations.take(id)).port };
      await writeRecord(files, record);
    }
  }
}

/** Characters that take more than one byte count for more. */
function extra(text: string): number {
  return Buffer.byteLength(text) - text.length;
}

async function thawed(
  { qmp, ended }: Started,
  migration: MigrationWatch,
  config: QemuConfig,
  signal: AbortSignal,
): Promise<void> {
  using limit = withTimeout(signal, config.readyTimeout, "loading the template's state");
  try {
    await thaw(qmp, migration, limit);
  } catch (error) {
    qmp[Symbol.dispose]();
    signal.throwIfAborted();
    const said = limit.aborted ? '' : `: ${await ended}`;
    throw new InfraletError('UNAVAILABLE', `the clone did not start${said}`, { cause: error });
  }
}

function newRecord(input: LaunchInput, reservation: { readonly port: number; readonly uid: number }): MachineRecord {
  const { id, request, config } = input;
  return {
    version: 1,
    id,
    token: request.token,
    tags: { ...request.tags },
    shape: { ...request.shape },
    launchedAt: input.now,
    accel: input.accel,
    ...(input.template ? { template: input.template.id } : {}),
    ...reservation,
    tap: tapName(id),
    cgroup: `${config.cgroup}/${id}`,
  };
}

/** A copy-on-write layer over the image's disk: at least as large as asked for, never smaller than its base. */
async function makeScratch(input: LaunchInput, signal: AbortSignal): Promise<void> {
  const { image, request, files, config, template } = input;
  if (template) return await copyFile(template.files.overlay, files.scratch, constants.COPYFILE_FICLONE);
  const size = Math.ceil(Math.max(request.shape.diskBytes, image.scratchBytes) / 2 ** 20) * 2 ** 20;
  const args = ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', image.scratch, files.scratch, String(size)];
  await run(config.imageTool, args, { signal, timeoutMs: config.readyTimeout });
}
