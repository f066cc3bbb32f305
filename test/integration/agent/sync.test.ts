/** Volumes that follow the node, from the kubelet's rename there to the rename in the machine: both ends are real. */
import { mkdirSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { chmod, rename, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { newSandboxId } from '../../../src/base/ids.ts';
import { systemClock, until } from '../../../src/base/time.ts';
import { configSchema } from '../../../src/config/schema.ts';
import type { AgentChannel, GuestFile } from '../../../src/guest/channel.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { LiveVolumes } from '../../../src/volume/live.ts';
import { AgentWorld, soon } from '../../support/agent/machine.ts';
import { publish } from '../../support/kubelet-volume.ts';

const SETTINGS = configSchema.parse({}).volume;
const sandboxId = newSandboxId();

function live(world: AgentWorld, channelOf: () => AgentChannel | undefined): LiveVolumes {
  const options = { settings: SETTINGS, limits: { maxBytes: 2 ** 30, maxFiles: 100_000 }, channelOf };
  return world.use(new LiveVolumes({ ...options, clock: systemClock, log: nullLogger }));
}

const soonTrue = async (probe: () => boolean, ms = 60_000): Promise<void> => {
  await until(() => probe() || undefined, { everyMs: 5, signal: AbortSignal.timeout(ms) });
};

test('an exchange on the node is one exchange in the machine, in the directory that is mounted', async () => {
  await using world = await AgentWorld.create();
  const { channel } = await world.enrolled();
  const source = join(world.dir, 'volume');
  await publish(source, { a: '0', b: '0', gone: 'soon' });
  const volumes = live(world, () => channel);
  const volume = { sandboxId, source, kind: 'directory', name: 'settings' } as const;
  const path = await volumes.add(volume, channel, AbortSignal.timeout(60_000));
  const { ino } = statSync(path);
  const times: number[] = [];
  for (let version = 1; version <= 5; version += 1) {
    await publish(source, { a: String(version), b: String(version), [`new-${version}`]: 'x' });
    const started = performance.now();
    // Never a missing file, never two versions below one link.
    await soonTrue(() => {
      const data = readlinkSync(join(path, '..data'));
      const seen = [readFileSync(join(path, 'a'), 'utf8'), readFileSync(join(path, 'b'), 'utf8')];
      expect(seen.every((text) => text === String(version) || text === String(version - 1))).toBe(true);
      if (readlinkSync(join(path, '..data')) === data) expect(seen[0]).toBe(seen[1]);
      return seen[0] === String(version) && readdirSync(path).length === 5;
    });
    times.push(performance.now() - started);
    expect(
      readdirSync(path)
        .filter((name) => !name.startsWith('..'))
        .sort(),
    ).toEqual(['a', 'b', `new-${version}`]);
  }
  expect(statSync(path).ino).toBe(ino);
  // The middle one: the host may be busy with other tests for a moment.
  expect(times.toSorted((a, b) => a - b)[2]).toBeLessThan(2000);
});

test('an agent killed in the middle leaves the old version or the new one, and the next try completes it', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel, dialer, identity } = await world.enrolled();
  const source = join(world.dir, 'volume');
  const text = (version: number) => `${version}:${'x'.repeat(300_000)}`;
  const names = Array.from({ length: 20 }, (_, index) => `file-${index}`);
  const all = (version: number) => Object.fromEntries(names.map((name) => [name, text(version)]));
  await publish(source, all(0));
  let current: AgentChannel | undefined = channel;
  const volumes = live(world, () => current);
  const volume = { sandboxId, source, kind: 'directory', name: 'settings' } as const;
  const path = await volumes.add(volume, channel, AbortSignal.timeout(60_000));
  const version = (): number => {
    const found = new Set(names.map((name) => readFileSync(join(path, name), 'utf8')));
    expect(found.size).toBe(1);
    return Number([...found][0]?.split(':')[0]);
  };
  const begun = (): number => Number(readFileSync(join(path, 'file-0'), 'utf8').split(':')[0]);
  for (let round = 1; round <= 4; round += 1) {
    await publish(source, all(round));
    // As soon as its directory appears, and a little later each time.
    await soonTrue(() => readdirSync(path).length > names.length + 2 || begun() === round);
    const made = readdirSync(path).find(
      (name) => /^\.\.\d{4}_/.test(name) && name !== readlinkSync(join(path, '..data')),
    );
    await soonTrue(() => made === undefined || readdirSync(join(path, made)).length >= round * 4 || begun() === round);
    current = undefined;
    await machine.kill();
    expect([round - 1, round]).toContain(version());
    await machine.start();
    current = world.use(await dialer.connect(machine.address, identity, soon(60_000)));
    volumes.resume(volume);
    await soonTrue(() => begun() === round && readdirSync(path).length === names.length + 2);
    expect(version()).toBe(round);
    // What the killed one was writing goes last.
    await soonTrue(() => readdirSync(join(path, '..data')).length === names.length);
  }
});

test('a daemon that was away brings what it missed, and sends nothing that the machine has', async () => {
  await using world = await AgentWorld.create();
  const { channel } = await world.enrolled();
  const source = join(world.dir, 'volume');
  await publish(source, { token: 'first' });
  const volume = { sandboxId, source, kind: 'directory', name: 'token' } as const;
  const before = live(world, () => channel);
  const path = await before.add(volume, channel, AbortSignal.timeout(60_000));
  await before[Symbol.asyncDispose]();
  const { ino } = statSync(join(path, 'token'));

  const again = live(world, () => channel);
  expect(await again.add(volume, channel, AbortSignal.timeout(60_000))).toBe(path);
  // A file that had been sent again would be another one.
  expect(statSync(join(path, 'token')).ino).toBe(ino);
  await again[Symbol.asyncDispose]();

  await publish(source, { token: 'rotated' });
  const later = live(world, () => channel);
  later.resume(volume);
  await soonTrue(() => readFileSync(join(path, 'token'), 'utf8') === 'rotated');
});

test('a single file keeps its inode: it is mounted, and the kubelet writes it in place', async () => {
  await using world = await AgentWorld.create();
  const { channel } = await world.enrolled();
  const source = join(world.dir, 'etc-hosts');
  await writeFile(source, '127.0.0.1 localhost\n192.0.2.7 a-long-name\n');
  const volumes = live(world, () => channel);
  const volume = { sandboxId, source, kind: 'file', name: 'hosts' } as const;
  const path = await volumes.add(volume, channel, AbortSignal.timeout(60_000));
  const { ino } = statSync(path);
  await writeFile(source, '127.0.0.1 localhost\n');
  await chmod(source, 0o640);
  await soonTrue(
    () => readFileSync(path, 'utf8') === '127.0.0.1 localhost\n' && (statSync(path).mode & 0o777) === 0o640,
  );
  expect(statSync(path).ino).toBe(ino);
  // Replaced on the node, overwritten in the machine.
  await writeFile(`${source}.new`, 'third\n');
  await rename(`${source}.new`, source);
  await soonTrue(() => readFileSync(path, 'utf8') === 'third\n');
  expect(statSync(path).ino).toBe(ino);
});

test('without a watch of the kernel a volume is polled; a forgotten one is left alone', async () => {
  await using world = await AgentWorld.create();
  const { channel } = await world.enrolled();
  const source = join(world.dir, 'parent', 'volume');
  await publish(source, { a: '1' });
  const volumes = live(world, () => channel);
  const volume = { sandboxId, source, kind: 'directory', name: 'polled' } as const;
  const path = await volumes.add(volume, channel, AbortSignal.timeout(60_000));
  await volumes[Symbol.asyncDispose]();
  // A watch follows the inode that it was made for; another one in its place tells nothing.
  await rename(source, `${source}.old`);
  mkdirSync(source);
  await publish(source, { a: '2' });
  const polling = new LiveVolumes({
    settings: { ...SETTINGS, recheck: 100, poll: 100 },
    limits: { maxBytes: 2 ** 30, maxFiles: 1000 },
    channelOf: () => channel,
    clock: systemClock,
    log: nullLogger,
  });
  world.use(polling);
  polling.resume(volume);
  await soonTrue(() => readFileSync(join(path, 'a'), 'utf8') === '2');
  await rename(source, `${source}.older`);
  mkdirSync(source);
  await publish(source, { a: '3' });
  await soonTrue(() => readFileSync(join(path, 'a'), 'utf8') === '3');
  polling.forget(sandboxId);
  await unlink(join(path, 'a'));
  await publish(source, { a: '4' });
  await systemClock.sleep(400, AbortSignal.timeout(5000));
  expect(readdirSync(path)).not.toContain('a');
});

test('keep makes what is missing and touches nothing else; the manners exclude each other', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const facts = { uid: 0, gid: 0, mtimeMs: 0 };
  const put = async (target: object, ...files: GuestFile[]) =>
    await channel.putFiles(
      { root: 'ROOT_SCRATCH', path: 'dir', replace: false, ...target },
      (async function* () {
        yield* files;
      })(),
      soon(60_000),
    );
  const path = await put({ keep: true }, { ...facts, path: '', kind: 'directory', mode: 0o2770, gid: 7 });
  expect(statSync(path)).toMatchObject({ mode: 0o42770, gid: 7 });
  await writeFile(join(path, 'data'), 'mine');
  await chmod(path, 0o700);
  const content = (async function* () {
    yield Buffer.from('node');
  })();
  await put(
    { keep: true },
    { ...facts, path: '', kind: 'directory', mode: 0o777 },
    { ...facts, path: 'data', kind: 'file', mode: 0o600, size: 4, content },
    { ...facts, path: 'link', kind: 'symlink', mode: 0, link: 'data' },
  );
  expect(statSync(path).mode & 0o7777).toBe(0o700);
  expect(readFileSync(join(path, 'data'), 'utf8')).toBe('mine');
  expect(readdirSync(path).sort()).toEqual(['data', 'link']);
  await expect(put({ keep: true, sync: true })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  await expect(
    channel.mount({ root: 'ROOT_SCRATCH', path: 'a/b', memory: { size: 1, mode: 0, uid: 0, gid: 0 } }, soon(60_000)),
  ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(readdirSync(join(machine.dir, 'scratch')).sort()).toEqual(['pod']);
});
