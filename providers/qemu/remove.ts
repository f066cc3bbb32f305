/**
 * Ends a machine and removes all that came with it, whole or half-made: process (and with it the tap and the port), cgroup,
 * files. The record goes last, so that a removal that was cut is found and finished. Safe to repeat.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno, InfraletError } from '../../src/base/errors.ts';
import type { InstanceId } from '../../src/base/ids.ts';
import { identify, isAlive, type ProcessIdentity, signalProcess } from '../../src/base/process-identity.ts';
import { type Clock, until, withTimeout } from '../../src/base/time.ts';
import { cgroupPids, removeCgroup } from './cgroup.ts';
import type { QemuConfig } from './config.ts';
import { findByName } from './process-identity.ts';
import { type MachineFiles, readRecord } from './record.ts';

/** A process that survives SIGKILL this long hangs in the kernel; milliseconds. */
const KILL_LIMIT_MS = 15_000;
const POLL_MS = 5;

export async function removeMachine(
  machine: {
    readonly id: InstanceId;
    readonly files: MachineFiles;
    readonly config: QemuConfig;
    readonly clock: Clock;
    /** Asks the emulator itself to end; false when it cannot be asked. */
    readonly quit: (signal: AbortSignal) => Promise<boolean>;
  },
  signal: AbortSignal,
): Promise<void> {
  const { id, files, config } = machine;
  const read = await readRecord(files);
  const cgroup = read.kind === 'record' ? read.record.cgroup : `${config.cgroup}/${id}`;
  const known = read.kind === 'record' ? read.record.process : undefined;
  await endProcesses(machine, known, cgroup, signal);
  await removeCgroup(cgroup, signal);
  for (const name of await entries(files.dir)) {
    const path = join(files.dir, name);
    if (path !== files.record) await rm(path, { recursive: true, force: true });
  }
  await rm(files.dir, { recursive: true, force: true });
}

async function endProcesses(
  machine: Parameters<typeof removeMachine>[0],
  known: ProcessIdentity | undefined,
  cgroup: string,
  signal: AbortSignal,
): Promise<void> {
  const { id, config, clock } = machine;
  const find = async (): Promise<readonly ProcessIdentity[]> => {
    if (known && (await isAlive(known))) return [known];
    // No process on record, or it is gone: one that was started just before a crash is in the cgroup or bears the name.
    const members = await Promise.all((await cgroupPids(cgroup)).map(identify));
    const found = members.filter((member) => member !== undefined);
    return found.length > 0 || known ? found : await findByName(id);
  };
  const gone = async (ms: number): Promise<boolean> => {
    using limit = withTimeout(signal, ms, `the end of machine ${id}`);
    try {
      return await until(async () => ((await find()).length === 0 ? true : undefined), {
        everyMs: POLL_MS,
        clock,
        signal: limit,
      });
    } catch (error) {
      signal.throwIfAborted();
      if (limit.aborted) return false;
      throw error;
    }
  };
  if ((await find()).length === 0) return;
  if ((await machine.quit(signal)) && (await gone(config.killGrace))) return;
  for (const step of ['SIGTERM', 'SIGKILL'] as const) {
    for (const member of await find()) await signalProcess(member, step);
    if (await gone(step === 'SIGTERM' ? config.killGrace : KILL_LIMIT_MS)) return;
  }
  throw new InfraletError('UNAVAILABLE', `the process of machine ${id} does not end`, {
    hint: 'it hangs in the kernel, most often on a disk that does not answer: see dmesg',
    context: { instanceId: id },
  });
}

async function entries(dir: string): Promise<readonly string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}
