/**
 * machine.json: what one machine is, written before anything of it exists, so that a crash at any instruction leaves a
 * record from which all of it can be found and removed. The directory of records is the provider's only truth.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { errorMessage, hasErrno, InfraletError } from '../../src/base/errors.ts';
import { writeFileAtomic } from '../../src/base/files.ts';
import { type InstanceId, parseInstanceId } from '../../src/base/ids.ts';

const recordSchema = z.object({
  version: z.literal(1),
  id: z.string(),
  token: z.string().min(1).max(64),
  tags: z.record(z.string(), z.string()),
  shape: z.object({ cpuMillis: z.number(), memoryBytes: z.number(), diskBytes: z.number() }),
  /** What it was made with; absent while that is its shape. */
  most: z.object({ cpuMillis: z.number(), memoryBytes: z.number(), diskBytes: z.number() }).optional(),
  /** Milliseconds since the epoch. */
  launchedAt: z.number(),
  accel: z.enum(['kvm', 'tcg']),
  /** The template that it is a clone of; absent when it booted by itself. */
  template: z.string().optional(),
  /** TCP port on the node's loopback that leads to the agent. */
  port: z.int().min(1).max(65535),
  /** The process runs as this user and group. */
  uid: z.int().min(1),
  tap: z.string().min(1).max(15),
  cgroup: z.string().min(1),
  /** Set when the process has answered. A record without it belongs to a launch that never came to its end. */
  process: z.object({ pid: z.int().min(2), startTime: z.string() }).optional(),
  /** Set when the machine has been seen to stop, with the reason. */
  stopped: z.object({ at: z.number(), reason: z.string() }).optional(),
});

export type MachineRecord = Readonly<z.output<typeof recordSchema>>;

export type RecordRead =
  | { readonly kind: 'record'; readonly record: MachineRecord }
  /** A directory without a record: the launch was cut before it began. */
  | { readonly kind: 'none' }
  | { readonly kind: 'broken'; readonly problem: string };

const ID = /^[0-9a-f]{12}$/;

/**
 * A machine's id, from its token: the same launch finds the same directory, whatever was lost in between. The state
 * directory takes part, so that two installations on one host never mean the same machine.
 */
export function machineId(stateDir: string, token: string): InstanceId {
  return parseInstanceId(createHash('sha256').update(`${stateDir}\0${token}`).digest('hex').slice(0, 12));
}

/** Ids come from callers: nothing that is not one of ours may name a path. */
export function isMachineId(text: string): boolean {
  return ID.test(text);
}

/** 15 characters, the most that Linux takes. */
export function tapName(id: InstanceId): string {
  return `inf${id}`;
}

/** Files of one machine. */
export function machineFiles(machinesDir: string, id: InstanceId) {
  const dir = join(machinesDir, id);
  return {
    dir,
    record: join(dir, 'machine.json'),
    userData: join(dir, 'user-data'),
    scratch: join(dir, 'scratch.qcow2'),
    qmp: join(dir, 'qmp.sock'),
    console: join(dir, 'console.log'),
    stderr: join(dir, 'qemu.log'),
  } as const;
}
export type MachineFiles = ReturnType<typeof machineFiles>;

export async function writeRecord(files: MachineFiles, record: MachineRecord): Promise<void> {
  await writeFileAtomic(files.record, `${JSON.stringify(record, undefined, 1)}\n`, 0o600);
}

export async function readRecord(files: MachineFiles): Promise<RecordRead> {
  let text: string;
  try {
    text = await readFile(files.record, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR')) return { kind: 'none' };
    return { kind: 'broken', problem: errorMessage(error) };
  }
  try {
    return { kind: 'record', record: recordSchema.parse(JSON.parse(text)) };
  } catch (error) {
    const problem = error instanceof z.ZodError ? z.prettifyError(error) : errorMessage(error);
    return { kind: 'broken', problem: `${files.record}: ${problem}` };
  }
}

/** Ids of all machine directories. */
export async function listMachines(machinesDir: string): Promise<readonly InstanceId[]> {
  const entries = await readdir(machinesDir, { withFileTypes: true });
  return entries
    .filter((entry) => entry.isDirectory() && ID.test(entry.name))
    .map((entry) => parseInstanceId(entry.name));
}

export async function machineExists(files: MachineFiles): Promise<boolean> {
  try {
    return (await stat(files.dir)).isDirectory();
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

export function brokenRecord(id: InstanceId, problem: string): InfraletError {
  return new InfraletError('DATA_LOSS', `the record of machine ${id} is unreadable: ${problem}`, {
    hint: 'terminate the machine; nothing else depends on this file',
    context: { instanceId: id },
  });
}
