/**
 * Makes one machine, in steps that a crash may cut anywhere: the record first, then files, cgroup and process, then the
 * record again with the process. What is left of a cut launch is found by its record and removed by removeMachine.
 */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { InfraletError, isAbortError } from '../../src/base/errors.ts';
import type { InstanceId } from '../../src/base/ids.ts';
import { run } from '../../src/base/process.ts';
import type { LaunchRequest } from '../../src/cloud/contract.ts';
import { memoryMiB, qemuArguments } from './arguments.ts';
import { makeCgroup } from './cgroup.ts';
import type { QemuConfig } from './config.ts';
import type { GuestImage } from './guest-image.ts';
import type { QmpEvent } from './qmp.ts';
import { type MachineFiles, type MachineRecord, tapName, writeRecord } from './record.ts';
import type { Reservations } from './reservations.ts';
import { type Started, startQemu } from './spawn.ts';

/** The fw_cfg file's limit in the contract. */
const MAX_USER_DATA = 4096;
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
}

export interface Launched {
  readonly record: MachineRecord;
  readonly started: Started;
  /** Events that came before anyone listened. */
  readonly early: QmpEvent[];
  /** Receives every later event once it is set. */
  readonly events: { forward: ((event: QmpEvent) => void) | undefined };
}

/** Throws INVALID_ARGUMENT for what can never work. */
export function checkRequest(request: LaunchRequest): void {
  // oxlint-disable-next-line no-control-regex -- the contract asks for printable ASCII
  if (!/^[\x21-\x7e]{1,64}$/.test(request.token)) {
    throw new InfraletError('INVALID_ARGUMENT', 'a launch token has 1 to 64 printable ASCII characters');
  }
  if (Buffer.byteLength(request.userData) > MAX_USER_DATA) {
    throw new InfraletError('INVALID_ARGUMENT', `user data is larger than ${MAX_USER_DATA} bytes`);
  }
  const { cpuMillis, memoryBytes, diskBytes } = request.shape;
  if (!(cpuMillis > 0 && memoryBytes >= 64 * 2 ** 20 && diskBytes >= 0)) {
    throw new InfraletError('INVALID_ARGUMENT', 'a machine needs some CPU and at least 64 MiB of memory', {
      context: { shape: request.shape },
    });
  }
}

export async function launchMachine(input: LaunchInput, signal: AbortSignal): Promise<Launched> {
  const { id, files, request, config, reservations } = input;
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
        memoryMiB(request.shape) * 2 ** 20 +
        config.memoryOverhead +
        (input.accel === 'tcg' ? config.translationCache : 0),
      maxThreads: config.maxThreads,
    }),
    writeFile(files.userData, request.userData, { mode: 0o600 }),
    makeScratch(input, signal),
  ]);
  const early: QmpEvent[] = [];
  const events: Launched['events'] = { forward: undefined };
  const onEvent = (event: QmpEvent): void => {
    if (events.forward) events.forward(event);
    else early.push(event);
  };
  for (let attempt = 1; ; attempt += 1) {
    try {
      const args = qemuArguments({ record, files, commandLine: input.commandLine }, input.image, config);
      const started = await startQemu({ args, cgroupDirs, files, config, onEvent }, signal);
      record = { ...record, process: started.identity };
      await writeRecord(files, record);
      // QEMU has read it; the enrolment token in it need not lie on disk any longer.
      await rm(files.userData, { force: true });
      return { record, started, early, events };
    } catch (error) {
      if (isAbortError(error) || attempt === PORT_TRIES || !PORT_TAKEN.test(String(error))) throw error;
      record = { ...record, port: (await reservations.take(id)).port };
      await writeRecord(files, record);
    }
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
    ...reservation,
    tap: tapName(id),
    cgroup: `${config.cgroup}/${id}`,
  };
}

/** A copy-on-write layer over the image's disk: at least as large as asked for, never smaller than its base. */
async function makeScratch(input: LaunchInput, signal: AbortSignal): Promise<void> {
  const { image, request, files, config } = input;
  const size = Math.ceil(Math.max(request.shape.diskBytes, image.scratchBytes) / 2 ** 20) * 2 ** 20;
  const args = ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', image.scratch, files.scratch, String(size)];
  await run(config.imageTool, args, { signal, timeoutMs: config.readyTimeout });
}
