/**
 * What a test run leaves on the host: processes, network devices, namespaces, mounts, packet filter rules, cgroups, files.
 * `node leaks.ts snapshot` prints what is there now; `node leaks.ts check FILE` names what came since, exit code 1.
 * Processes are known by the environment variable INFRALET_TEST_RUN, which all children of a run inherit.
 */
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** Kind → names; only names that were not there before count. */
export type Snapshot = Readonly<Record<string, readonly string[]>>;

const RUN_VARIABLE = 'INFRALET_TEST_RUN';
/** Programs that somebody may start with a clean environment. */
const OUR_PROGRAMS = /^(qemu-system|virtiofsd|docker-registry)/;
/** Directories that programs of ours could litter, with the names that count there. */
const WATCHED: readonly (readonly [directory: string, names: RegExp])[] = [
  ['/run', /./],
  ['/run/infralet', /./],
  ['/var/lib', /^(?!infralet$|apt$|dpkg$)/],
  ['/var/lib/cni', /./],
  ['/var/lib/cni/networks', /./],
  ['/var/lib/cni/results', /./],
  ['/etc/cni/net.d', /./],
  ['/dev/shm', /./],
  ['/tmp', /^(infralet|cni|qemu|skopeo|storage|oci|vitest)/],
  ['/var/tmp', /./],
];

/** All that can be left behind, as it is now. `run` is the value of INFRALET_TEST_RUN whose processes count. */
export async function snapshot(run: string | undefined): Promise<Snapshot> {
  const [processes, links, netns, mounts, rules, cgroups, files] = await Promise.all([
    listProcesses(run),
    listLinks(),
    list('/run/netns'),
    listMounts(),
    listRules(),
    listCgroups('/sys/fs/cgroup', 3),
    listFiles(),
  ]);
  return {
    process: processes,
    'network device': links,
    'network namespace': netns,
    mount: mounts,
    'packet filter rule': rules,
    cgroup: cgroups,
    file: files,
  };
}

/** "kind name" for everything that is in `after` and was not in `before`. */
export function difference(before: Snapshot, after: Snapshot): readonly string[] {
  return Object.entries(after).flatMap(([kind, names]) => {
    const known = new Set(before[kind] ?? []);
    return names.filter((name) => !known.has(name)).map((name) => `${kind} ${name}`);
  });
}

async function listProcesses(run: string | undefined): Promise<readonly string[]> {
  const pids = (await list('/proc')).filter((name) => /^\d+$/.test(name) && name !== String(process.pid));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const [environment, name, command] = await Promise.all(
        ['environ', 'comm', 'cmdline'].map((file) => text(join('/proc', pid, file))),
      );
      const ours = run !== undefined && environment?.split('\0').includes(`${RUN_VARIABLE}=${run}`);
      if (!ours && !OUR_PROGRAMS.test(name ?? '')) return undefined;
      // A process that is ending has no command line any more.
      return command === undefined || command === ''
        ? undefined
        : `${pid} ${command.replaceAll('\0', ' ').trim().slice(0, 160)}`;
    }),
  );
  // The `ip` and `nft` that look at the host now are ours, too.
  return found.filter((entry) => entry !== undefined && !/^\d+ (ip|nft|ip6?tables-save)\b/.test(entry)) as string[];
}

async function listLinks(): Promise<readonly string[]> {
  const output = await command('ip', ['-json', 'link', 'show']);
  if (output === '') return [];
  return (JSON.parse(output) as readonly { readonly ifname: string }[]).map(({ ifname }) => ifname);
}

async function listMounts(): Promise<readonly string[]> {
  const table = (await text('/proc/self/mountinfo')) ?? '';
  return table.split('\n').flatMap((entry) => entry.split(' ')[4] ?? []);
}

async function listRules(): Promise<readonly string[]> {
  const outputs = await Promise.all([
    command('nft', ['--stateless', 'list', 'ruleset']),
    command('iptables-save', []),
    command('ip6tables-save', []),
  ]);
  return outputs.flatMap((output) =>
    output
      .split('\n')
      .map((entry) => entry.replaceAll(/\[\d+:\d+\]/g, '').trim())
      .filter((entry) => entry !== '' && !entry.startsWith('#') && entry !== '}' && entry !== 'COMMIT'),
  );
}

async function listCgroups(directory: string, depth: number): Promise<readonly string[]> {
  if (depth === 0) return [];
  const entries = await directories(directory);
  const below = await Promise.all(entries.map((name) => listCgroups(join(directory, name), depth - 1)));
  return [...entries.filter((name) => name.includes('infralet')).map((name) => join(directory, name)), ...below.flat()];
}

async function listFiles(): Promise<readonly string[]> {
  const found = await Promise.all(
    WATCHED.map(async ([directory, names]) =>
      (await list(directory)).filter((name) => names.test(name)).map((name) => join(directory, name)),
    ),
  );
  // What a running vitest or compiler keeps for itself.
  return found.flat().filter((path) => path !== '/tmp/node-compile-cache' && path !== process.env['TMPDIR']);
}

async function list(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch {
    return [];
  }
}

async function directories(path: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  } catch {
    return [];
  }
}

async function text(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** Output of a program; empty when it is not installed or fails. */
async function command(file: string, args: readonly string[]): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(file, [...args], { maxBuffer: 64 * 1024 * 1024 });
    return stdout;
  } catch {
    return '';
  }
}

async function main(mode: string | undefined, file: string | undefined): Promise<number> {
  const now = await snapshot(process.env[RUN_VARIABLE]);
  if (mode === 'snapshot') {
    process.stdout.write(JSON.stringify(now));
    return 0;
  }
  if (mode !== 'check' || file === undefined) {
    process.stderr.write('usage: leaks.ts snapshot | check FILE\n');
    return 2;
  }
  const left = difference(JSON.parse(await readFile(file, 'utf8')) as Snapshot, now);
  for (const entry of left) process.stdout.write(`${entry}\n`);
  return left.length === 0 ? 0 : 1;
}

if (import.meta.main) process.exitCode = await main(process.argv[2], process.argv[3]);
