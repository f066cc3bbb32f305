/** Files in and out over the channel: attributes, replacement, confinement, limits. */
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { until } from '../../../src/base/time.ts';
import type { AgentChannel, GuestFile } from '../../../src/guest/channel.ts';
import { AgentWorld, soon } from '../../support/agent/machine.ts';

const COMMON = { mode: 0o644, uid: 0, gid: 0, mtimeMs: 1_700_000_000_000 };

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

function file(path: string, text: string | Uint8Array, more: Partial<typeof COMMON> = {}): GuestFile {
  const bytes = Buffer.from(text);
  return { ...COMMON, ...more, kind: 'file', path, size: bytes.length, content: once(bytes) };
}

function directory(path: string, more: Partial<typeof COMMON> = {}): GuestFile {
  return { ...COMMON, mode: 0o755, ...more, kind: 'directory', path };
}

function link(path: string, to: string, more: Partial<typeof COMMON> = {}): GuestFile {
  return { ...COMMON, ...more, kind: 'symlink', path, link: to };
}

async function* all(...files: readonly GuestFile[]): AsyncGenerator<GuestFile> {
  yield* files;
}

function put(channel: AgentChannel, path: string, replace: boolean, ...files: readonly GuestFile[]): Promise<string> {
  return channel.putFiles({ root: 'ROOT_VOLUMES', path, replace }, all(...files), soon());
}

/** No temporary name may stay behind. Links are not followed. */
function leftovers(dir: string): readonly string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((found) => {
    const inner = found.isDirectory() ? leftovers(join(dir, found.name)) : [];
    return found.name.includes('.infralet-') ? [found.name, ...inner] : inner;
  });
}

test('a tree arrives with contents, modes, owners, times and links', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const big = Buffer.alloc(3_000_000, 'x');
  const path = await put(
    channel,
    'pod/vol',
    true,
    directory('', { mode: 0o2750, uid: 1000, gid: 2000 }),
    file('empty', ''),
    file('tool', 'binary', { mode: 0o4755, uid: 12, gid: 34 }),
    directory('closed', { mode: 0o555, mtimeMs: 1_600_000_000_000 }),
    file('closed/big', big),
    link('link', '/etc/passwd', { uid: 5, gid: 6 }),
    file('deep/er/not-announced', 'parents are made'),
  );
  const volumes = join(machine.dir, 'scratch/volumes');
  expect(path).toBe(join(volumes, 'pod/vol'));
  expect(lstatSync(path)).toMatchObject({ mode: 0o42750, uid: 1000, gid: 2000, mtimeMs: COMMON.mtimeMs });
  expect(lstatSync(join(path, 'tool'))).toMatchObject({ mode: 0o104755, uid: 12, gid: 34, mtimeMs: COMMON.mtimeMs });
  expect(lstatSync(join(path, 'closed'))).toMatchObject({ mode: 0o40555, mtimeMs: 1_600_000_000_000 });
  expect(readFileSync(join(path, 'closed/big')).equals(big)).toBe(true);
  expect(readFileSync(join(path, 'empty'), 'utf8')).toBe('');
  expect(readlinkSync(join(path, 'link'))).toBe('/etc/passwd');
  expect(lstatSync(join(path, 'link'))).toMatchObject({ uid: 5, gid: 6, mtimeMs: COMMON.mtimeMs });
  expect(readFileSync(join(path, 'deep/er/not-announced'), 'utf8')).toBe('parents are made');
  expect(leftovers(volumes)).toEqual([]);

  await channel.removeFiles('ROOT_VOLUMES', ['pod/vol', 'pod/never-was', 'no/such/parent'], soon());
  expect(readdirSync(join(volumes, 'pod'))).toEqual([]);
});

test('replace exchanges trees and files; without it entries are added, each in one step', async () => {
  await using world = await AgentWorld.create();
  const { channel } = await world.enrolled();
  const path = await put(
    channel,
    'config',
    true,
    file('..one/key', '1'),
    link('..data', '..one'),
    link('key', '..data/key'),
  );
  expect(readFileSync(join(path, 'key'), 'utf8')).toBe('1');

  await put(channel, 'config', false, file('..two/key', '2'), link('..data', '..two'));
  expect(readFileSync(join(path, 'key'), 'utf8')).toBe('2');
  await channel.removeFiles('ROOT_VOLUMES', ['config/..one'], soon());
  expect(readdirSync(path).sort()).toEqual(['..data', '..two', 'key']);

  await put(channel, 'config', true, file('only', 'new'));
  expect(readdirSync(path)).toEqual(['only']);
  await put(channel, 'config', true, file('', 'a file where a directory was'));
  expect(readFileSync(path, 'utf8')).toBe('a file where a directory was');
  await put(channel, 'config', true, file('', 'another'));
  expect(readFileSync(path, 'utf8')).toBe('another');
  await put(channel, 'config', true, link('', '/nowhere'));
  expect(readlinkSync(path)).toBe('/nowhere');
  await put(channel, 'config', true, directory(''));
  expect(readdirSync(path)).toEqual([]);
});

test('paths that leave their root are refused', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  for (const path of [
    '../escape',
    'a/../../escape',
    '/etc/escape',
    '..',
    '.',
    'a/./b',
    'nul\0byte',
    'x'.repeat(5000),
  ]) {
    await expect(put(channel, path, true, file('', 'x')), path).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(put(channel, 'ok', false, file(path, 'x')), path).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(channel.removeFiles('ROOT_VOLUMES', [path], soon()), path).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await expect(read(channel, path), path).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  await expect(put(channel, '', true, file('x', 'x'))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  await expect(channel.removeFiles('ROOT_VOLUMES', [''], soon())).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(leftovers(machine.dir)).toEqual([]);
});

test('symlinks planted by a container lead nowhere', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const outside = join(machine.dir, 'outside');
  mkdirSync(outside);
  writeFileSync(join(outside, 'secret'), 'untouched');
  const path = await put(channel, 'vol', true, directory(''), file('sub/file', 'x'));
  rmSync(join(path, 'sub'), { recursive: true });
  symlinkSync(outside, join(path, 'sub'));
  symlinkSync(join(outside, 'secret'), join(path, 'direct'));

  await expect(put(channel, 'vol', false, file('sub/file', 'x'))).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
  });
  await expect(put(channel, 'vol/sub/inner', true, file('x', 'x'))).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
  });
  await expect(put(channel, 'vol', false, directory('sub', { mode: 0o777 }))).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
  });
  await expect(read(channel, 'vol/sub/secret', 'ROOT_VOLUMES')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  await expect(read(channel, 'vol/direct', 'ROOT_VOLUMES')).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
  // Over the link itself a file may be put: it replaces the link, not what it leads to.
  await put(channel, 'vol', false, file('direct', 'mine'));
  await channel.removeFiles('ROOT_VOLUMES', ['vol'], soon());
  expect(readdirSync(outside)).toEqual(['secret']);
  expect(readFileSync(join(outside, 'secret'), 'utf8')).toBe('untouched');
});

test('a broken upload leaves the old tree and nothing else', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const path = await put(channel, 'vol', true, file('a', 'old'));
  async function* breaks(): AsyncGenerator<GuestFile> {
    yield file('a', 'new');
    throw new Error('the source vanished');
  }
  const target = { root: 'ROOT_VOLUMES', path: 'vol', replace: true } as const;
  await expect(channel.putFiles(target, breaks(), soon())).rejects.toThrow('the source vanished');
  const shrunk: GuestFile = { ...COMMON, kind: 'file', path: 'a', size: 10, content: once(Buffer.from('short')) };
  await expect(channel.putFiles(target, all(shrunk), soon())).rejects.toMatchObject({ code: 'ABORTED' });
  await until(() => leftovers(machine.dir).length === 0 || undefined, {
    everyMs: 20,
    signal: AbortSignal.timeout(5000),
  });
  expect(readFileSync(join(path, 'a'), 'utf8')).toBe('old');
  await expect(put(channel, 'vol', false, file('a/b', 'x'))).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  await expect(put(channel, 'vol', false, file('m', 'x', { mode: 0o100644 }))).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
  });
});

type Root = Parameters<AgentChannel['readFile']>[0];

async function read(channel: AgentChannel, path: string, root: Root = 'ROOT_LOGS', limit = 2 ** 30): Promise<string> {
  const parts: Buffer[] = [];
  for await (const data of channel.readFile(root, path, limit, AbortSignal.timeout(10_000))) parts.push(data);
  return Buffer.concat(parts).toString();
}

test('files are read up to a limit', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const logs = join(machine.dir, 'scratch/logs');
  mkdirSync(logs, { recursive: true });
  const text = Array.from({ length: 50_000 }, (_, index) => `line ${index}\n`).join('');
  writeFileSync(join(logs, 'big.log'), text);
  expect(await read(channel, 'big.log')).toBe(text);
  expect(await read(channel, 'big.log', 'ROOT_LOGS', 100)).toBe(text.slice(0, 100));
  await expect(read(channel, 'none.log')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  mkdirSync(join(logs, 'dir'));
  await expect(read(channel, 'dir')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
});

test('a reader that is slow does not fill the agent', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const logs = join(machine.dir, 'scratch/logs');
  mkdirSync(logs, { recursive: true });
  writeFileSync(join(logs, 'huge.log'), Buffer.alloc(200 * 1024 * 1024, 0x61));
  const before = Number((await channel.status(soon())).agentResidentBytes);
  const signal = AbortSignal.timeout(30_000);
  const reader = channel.readFile('ROOT_LOGS', 'huge.log', 2 ** 30, signal)[Symbol.asyncIterator]();
  await reader.next();
  // Heartbeats show that the agent has had its turns to read ahead.
  let beats = 0;
  for await (const event of channel.watch(100, AbortSignal.timeout(10_000))) {
    if (event.kind === 'heartbeat') beats += 1;
    if (beats === 8) break;
  }
  const after = Number((await channel.status(soon())).agentResidentBytes);
  expect(after - before).toBeLessThan(24 * 1024 * 1024);
  await reader.return?.();
});
