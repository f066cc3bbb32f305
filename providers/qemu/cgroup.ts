/**
 * One cgroup per machine, on hosts with the unified hierarchy (v2) and with separate controllers (v1) alike. It bounds CPU,
 * memory and threads of the emulator, so that a guest cannot take more of the node than its machine was given.
 */
import { access, mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errorMessage, hasErrno, InfraletError } from '../../src/base/errors.ts';
import { until, withTimeout } from '../../src/base/time.ts';

const MOUNT = '/sys/fs/cgroup';
const CONTROLLERS = ['cpu', 'memory', 'pids'] as const;
/** Length of a CPU accounting period in microseconds, the kernel's default. */
const PERIOD_US = 100_000;
/** The parent goes with its last machine, perhaps just when the next one is made. */
const DIR_TRIES = 10;

export interface CgroupLimits {
  /** Weight among neighbours, thousandths of a CPU. */
  readonly shareMillis: number;
  /** Hard limit, thousandths of a CPU. */
  readonly quotaMillis: number;
  readonly memoryBytes: number;
  readonly maxThreads: number;
}

export type CgroupVersion = 1 | 2;

/** Which hierarchy this host has. Throws FAILED_PRECONDITION when neither can be used. */
export async function cgroupVersion(): Promise<CgroupVersion> {
  if (await exists(join(MOUNT, 'cgroup.controllers'))) return 2;
  for (const controller of CONTROLLERS) {
    if (!(await exists(join(MOUNT, controller, 'cgroup.procs')))) {
      throw new InfraletError('FAILED_PRECONDITION', `the cgroup controller ${controller} is not mounted`, {
        hint: `mount the unified hierarchy: mount -t cgroup2 none ${MOUNT}`,
      });
    }
  }
  return 1;
}

/** The directories of cgroup `name` (such as `infralet/1234`); a process belongs to all of them. */
export function cgroupDirs(version: CgroupVersion, name: string): readonly string[] {
  return version === 2 ? [join(MOUNT, name)] : CONTROLLERS.map((controller) => join(MOUNT, controller, name));
}

/** The files of a limit, by directory-relative name, in the order in which they must be written. Pure. */
export function limitFiles(
  version: CgroupVersion,
  limits: CgroupLimits,
): readonly (readonly [string, string, string])[] {
  const quota = Math.max(1000, Math.round((limits.quotaMillis * PERIOD_US) / 1000));
  // The kernel's own range of cpu.shares, and the conversion to weights that all runtimes use.
  const shares = Math.min(262_144, Math.max(2, Math.round((limits.shareMillis * 1024) / 1000)));
  const memory = String(Math.round(limits.memoryBytes));
  if (version === 2) {
    return [
      ['', 'cpu.max', `${quota} ${PERIOD_US}`],
      ['', 'cpu.weight', String(1 + Math.floor(((shares - 2) * 9999) / 262_142))],
      ['', 'memory.max', memory],
      ['', 'pids.max', String(limits.maxThreads)],
    ];
  }
  return [
    ['cpu', 'cpu.cfs_period_us', String(PERIOD_US)],
    ['cpu', 'cpu.cfs_quota_us', String(quota)],
    ['cpu', 'cpu.shares', String(shares)],
    ['memory', 'memory.limit_in_bytes', memory],
    ['pids', 'pids.max', String(limits.maxThreads)],
  ];
}

/** Makes the cgroup and sets its limits; repeating it sets them again. */
export async function makeCgroup(name: string, limits: CgroupLimits): Promise<readonly string[]> {
  const version = await cgroupVersion();
  const dirs = cgroupDirs(version, name);
  try {
    for (let attempt = 1; !(await makeDirs(version, name, dirs)); attempt += 1) {
      if (attempt === DIR_TRIES) throw new InfraletError('UNAVAILABLE', 'its parent keeps disappearing');
    }
    for (const [controller, file, value] of limitFiles(version, limits)) {
      await writeFile(join(MOUNT, controller, name, file), value);
    }
    await weighParents(version, name);
  } catch (error) {
    throw new InfraletError('FAILED_PRECONDITION', `cannot make the cgroup ${name}: ${errorMessage(error)}`, {
      cause: error,
      hint: 'run the daemon as root with /sys/fs/cgroup writable',
    });
  }
  return dirs;
}

/** Another share of the CPU for what runs in the cgroup. */
export async function setCpu(name: string, limits: Pick<CgroupLimits, 'shareMillis' | 'quotaMillis'>): Promise<void> {
  const version = await cgroupVersion();
  for (const [controller, file, value] of limitFiles(version, { ...limits, memoryBytes: 0, maxThreads: 0 })) {
    if (file.startsWith('cpu.')) await writeFile(join(MOUNT, controller, name, file), value);
  }
  await weighParents(version, name);
}

/** What the kernel takes as the weight of a cgroup. */
const WEIGHTS = {
  1: { root: join(MOUNT, 'cpu'), file: 'cpu.shares', most: 262_144 },
  2: { root: MOUNT, file: 'cpu.weight', most: 10_000 },
} as const;

/**
 * Gives each cgroup above `name` the weight of all that is in it. Without this a hundred machines together would weigh as
 * much as a single process outside of them.
 */
async function weighParents(version: CgroupVersion, name: string): Promise<void> {
  const { root, file, most } = WEIGHTS[version];
  for (let parent = dirname(name); parent !== '.' && parent !== '/'; parent = dirname(parent)) {
    try {
      const children = (await readdir(join(root, parent), { withFileTypes: true })).filter((each) =>
        each.isDirectory(),
      );
      const weights = await Promise.all(
        // One that has just gone weighs nothing.
        children.map(async (child) =>
          Number(await readFile(join(root, parent, child.name, file), 'utf8').catch(() => 0)),
        ),
      );
      const sum = weights.reduce((total, weight) => total + weight, 0);
      if (sum > 0) await writeFile(join(root, parent, file), String(Math.min(sum, most)));
    } catch (error) {
      // It goes with its last machine, perhaps just now.
      if (!hasErrno(error, 'ENOENT', 'ENODEV')) throw error;
    }
  }
}

/** False when the parent was removed with another machine in between. */
async function makeDirs(version: CgroupVersion, name: string, dirs: readonly string[]): Promise<boolean> {
  try {
    if (version === 2) await delegate(name);
    for (const dir of dirs) await mkdir(dir, { recursive: true });
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

/** Pids in the cgroup, in any of its hierarchies; none when it does not exist. */
export async function cgroupPids(name: string): Promise<readonly number[]> {
  const pids = new Set<number>();
  for (const dir of cgroupDirs(await cgroupVersion(), name)) {
    try {
      for (const line of (await readFile(join(dir, 'cgroup.procs'), 'utf8')).split('\n')) {
        if (line !== '') pids.add(Number(line));
      }
    } catch (error) {
      if (!hasErrno(error, 'ENOENT', 'ENODEV')) throw error;
    }
  }
  return [...pids];
}

/** Removes an empty cgroup, and its parent with it when it was the last. The kernel keeps it busy for a moment after its last process. */
export async function removeCgroup(name: string, signal: AbortSignal): Promise<void> {
  const version = await cgroupVersion();
  using limit = withTimeout(signal, 5000, `removing the cgroup ${name}`);
  for (const dir of cgroupDirs(version, name)) {
    await until(
      async () => {
        try {
          await rmdir(dir);
        } catch (error) {
          if (hasErrno(error, 'EBUSY')) return undefined;
          if (!hasErrno(error, 'ENOENT')) throw error;
        }
        return true;
      },
      { everyMs: 10, signal: limit },
    );
    await rmdir(dirname(dir)).catch((error: unknown) => {
      if (!hasErrno(error, 'EBUSY', 'ENOTEMPTY', 'ENOENT')) throw error;
    });
  }
  await weighParents(version, name);
}

/** Hands the controllers down to each parent of `name` (v2 only). */
async function delegate(name: string): Promise<void> {
  let dir = MOUNT;
  for (const part of name.split('/')) {
    await mkdir(dir, { recursive: true });
    await writeFile(join(dir, 'cgroup.subtree_control'), CONTROLLERS.map((controller) => `+${controller}`).join(' '));
    dir = join(dir, part);
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR')) return false;
    throw error;
  }
}
