/** `Mount`: file systems of their own for volumes that are more than a directory. */
import { readFileSync, writeFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { errorMessage, hasErrno, InfraletError } from '../base/errors.ts';
import { KeyedLock } from '../base/keyed-lock.ts';
import type { HugePagesVolume__Output } from '../gen/infralet/agent/v1/HugePagesVolume.ts';
import type { MemoryVolume__Output } from '../gen/infralet/agent/v1/MemoryVolume.ts';
import type { MountRequest__Output } from '../gen/infralet/agent/v1/MountRequest.ts';
import type { SharedVolume__Output } from '../gen/infralet/agent/v1/SharedVolume.ts';
import { runCommand } from './commands.ts';
import { components, Directory } from './directory.ts';
import { type AgentOptions, LIMITS } from './options.ts';
import { rootPath } from './put-files.ts';
import type { Shares } from './shares.ts';

/** 2^32 - 1 means "leave it". */
const MAX_ID = 0xffff_fffe;

interface Plan {
  readonly type: 'tmpfs' | 'hugetlbfs' | 'nfs4';
  /** What mount(8) takes for the device. */
  readonly source: string;
  readonly options: readonly string[];
}

/** One at a time: see there why it must be known what is mounted. */
const lock = new KeyedLock<string>();

/** Idempotent: what is mounted there already stays, with what is in it. */
export async function mountVolume(
  request: MountRequest__Output,
  options: AgentOptions,
  shares: Shares,
  signal: AbortSignal,
): Promise<{ path: string }> {
  const parts = components(request.path);
  // One component below a root that only the agent writes to: no container can turn the path into another one.
  if (parts.length !== 1) throw wrong(request.path, 'a volume is mounted directly below its root');
  const root = rootPath(options.roots, request.root);
  const path = join(root, request.path);
  using _one = await lock.acquire(path, signal);
  const {
    type,
    source,
    options: list,
  } = request.share ? await sharePlan(request.share, request.path, shares) : plan(request, options);
  // A share is never opened here: the answer comes through this process, which would wait for itself.
  if (mountedAt(path, options) === type) return { path };
  Directory.walk(root, parts, true)[Symbol.dispose]();
  await runCommand(options.mountCommand, ['-t', type, '-o', list.join(','), source, path], LIMITS.mountMs);
  return { path };
}

function plan(request: MountRequest__Output, options: AgentOptions): Plan {
  if (request.memory) {
    const size = Number(request.memory.size);
    if (!Number.isSafeInteger(size) || size < 0) throw wrong(request.path, `${request.memory.size} is no size`);
    const bytes = Math.min(size === 0 ? Number.POSITIVE_INFINITY : size, totalmem());
    return { type: 'tmpfs', source: 'tmpfs', options: [`size=${bytes}`, ...owner(request.memory)] };
  }
  if (request.hugePages) {
    const pageSize = Number(request.hugePages.pageSize);
    allowPages(pageSize, options);
    return { type: 'hugetlbfs', source: 'hugetlbfs', options: [`pagesize=${pageSize}`, ...owner(request.hugePages)] };
  }
  throw wrong(request.path, 'none of memory, huge_pages and share is given');
}

/**
 * `hard`: while the node's daemon is away the pod waits, and goes on when it is back; no read or write fails for it. What
 * the node changes is seen after a second at most.
 */
async function sharePlan(
  { export: exported, readonly }: SharedVolume__Output,
  name: string,
  shares: Shares,
): Promise<Plan> {
  if (!/^\/[a-z]+$/.test(exported)) throw wrong(name, `${JSON.stringify(exported.slice(0, 80))} is no export`);
  const port = await shares.port(name);
  const timing = ['hard', 'timeo=100', 'retrans=2', 'actimeo=1', 'lookupcache=positive'];
  const where = ['vers=4.2', 'proto=tcp', 'addr=127.0.0.1', 'clientaddr=127.0.0.1', `port=${port}`, 'sec=sys'];
  return {
    type: 'nfs4',
    source: `127.0.0.1:${exported}`,
    options: [readonly ? 'ro' : 'rw', ...where, ...timing],
  };
}

function owner({ mode, uid, gid }: MemoryVolume__Output | HugePagesVolume__Output): readonly string[] {
  if (mode > 0o7777 || uid > MAX_ID || gid > MAX_ID)
    throw new InfraletError('INVALID_ARGUMENT', `mode ${mode.toString(8)}, uid ${uid}, gid ${gid}: out of range`);
  return [`mode=${mode.toString(8)}`, `uid=${uid}`, `gid=${gid}`];
}

/** Pages are taken from free memory as they are used; nobody has set any aside in a machine that was just made. */
function allowPages(pageSize: number, options: AgentOptions): void {
  if (!Number.isSafeInteger(pageSize) || pageSize < 4096) {
    throw new InfraletError('INVALID_ARGUMENT', `${pageSize} bytes are no size of huge pages`);
  }
  const file = join(options.hugePagesDir, `hugepages-${pageSize / 1024}kB`, 'nr_overcommit_hugepages');
  try {
    writeFileSync(file, String(Math.floor(totalmem() / pageSize)));
  } catch (error) {
    throw new InfraletError(
      'FAILED_PRECONDITION',
      `the machine has no huge pages of ${pageSize} bytes: ${errorMessage(error)}`,
      { cause: error, hint: 'use the medium HugePages-2Mi' },
    );
  }
}

/** Type of the file system whose root is `path`; the newest mount comes last. */
function mountedAt(path: string, { mountInfoFile }: AgentOptions): string | undefined {
  try {
    const lines = readFileSync(mountInfoFile, 'utf8').split('\n');
    const line = lines.findLast((each) => each.split(' ')[4] === path);
    return line === undefined ? undefined : (/ - (\S+)/.exec(line)?.[1] ?? '');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function wrong(path: string, why: string): InfraletError {
  return new InfraletError('INVALID_ARGUMENT', `the mount at ${JSON.stringify(path.slice(0, 200))}: ${why}`);
}
